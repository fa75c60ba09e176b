/*
 * Many runs of the kernel's own conf for the price of one reading of the tree.
 *
 * tools/build_conf.sh compiles the tree's conf.c with this put between its main() and conf_read(). main() then reads
 * the Kconfig files as ever; for each line of standard input, the path of a .config, a child of it goes on from there as
 * conf would, with KCONFIG_CONFIG naming that file. The first child that fails ends it all, with its exit status.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern int conf_read(const char *name);

int conf_read_each(const char *name)
{
	char *path = NULL;
	size_t size = 0;

	while (getline(&path, &size, stdin) > 0) {
		int status = 0;
		pid_t child;

		path[strcspn(path, "\n")] = '\0';
		fflush(NULL);
		child = fork();
		if (child == 0) {
			setenv("KCONFIG_CONFIG", path, 1);
			return conf_read(name);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
			fprintf(stderr, "conf failed on %s\n", path);
			_exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
		}
	}
	_exit(0);
}
