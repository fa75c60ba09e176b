#!/bin/sh
# Build a kernel tree's own scripts/kconfig/conf into OUT without the kernel's make, so that a tree which holds
# only Kconfig files and scripts/ will do, and a fake compiler beside it that answers yes to every question. OUT/conf_many
# is the same conf, for many files in one run (tools/conf_many.c).
#
#     tools/build_conf.sh TREE OUT
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$1" && pwd)
mkdir -p "$2"
cd "$2"
source=$tree/scripts/kconfig
bison -t -d -o parser.tab.c "$source/parser.y"
flex -o lexer.lex.c "$source/lexer.l"
set --
for part in confdata expr menu preprocess symbol util; do
    [ -f "$source/$part.c" ] && set -- "$@" "$source/$part.c"
done
compile() { gcc -O1 -w -D_GNU_SOURCE -I. -I"$source" -I"$tree/scripts/include" "$@"; }
for part in "$@" parser.tab.c lexer.lex.c; do
    compile -c "$part"
done
compile -c -o conf.o "$source/conf.c"
compile -c -Dconf_read=conf_read_each -o conf_each.o "$source/conf.c"
set -- confdata.o expr.o menu.o preprocess.o symbol.o util.o parser.tab.o lexer.lex.o
gcc -o conf conf.o "$@"
gcc -D_GNU_SOURCE -o conf_many conf_each.o "$here/conf_many.c" "$@"
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
