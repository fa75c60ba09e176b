#!/bin/sh
# Build a kernel tree's own scripts/kconfig/conf into OUT without the kernel's make, so that a tree which holds
# only Kconfig files and scripts/ will do, and a fake compiler beside it that answers yes to every question.
#
#     tools/build_conf.sh TREE OUT
set -eu
tree=$(cd "$1" && pwd)
mkdir -p "$2"
cd "$2"
source=$tree/scripts/kconfig
bison -t -d -o parser.tab.c "$source/parser.y"
flex -o lexer.lex.c "$source/lexer.l"
set --
for part in conf confdata expr menu preprocess symbol util; do
    [ -f "$source/$part.c" ] && set -- "$@" "$source/$part.c"
done
gcc -O1 -w -D_GNU_SOURCE -I. -I"$source" -I"$tree/scripts/include" -o conf "$@" parser.tab.c lexer.lex.c
cat > cc <<'EOF'
#!/bin/sh
# GCC 14.2.0 and binutils 2.44 as far as the kernel's version scripts ask; every other question is a yes.
case " $* " in
    *" -E "*) echo "GCC 14 2 0" ;;
    *-Wa,--version*) echo "GNU assembler (GNU Binutils) 2.44" ;;
    *--version*) echo "GNU ld (GNU Binutils) 2.44" ;;
    *-print-file-name*) echo "/nonexistent" ;;
esac
exit 0
EOF
chmod +x cc
