/* Runs a command that cannot use io_uring: io_uring_setup, io_uring_enter and io_uring_register fail
 * with EPERM, as under the default seccomp profile of common container runtimes. Everything else, and
 * every other process, is as before. No privilege is needed (no_new_privs is set, and is inherited). */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "add this machine's AUDIT_ARCH_ constant above"
#endif

/* 425 to 427, the same numbers on every architecture. */
#define FIRST __NR_io_uring_setup
#define LAST __NR_io_uring_register
_Static_assert(FIRST == 425 && LAST == 427, "the three calls are neighbours");

#define FIELD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name))

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s COMMAND [ARGUMENT...]\n", argv[0]);
    return 2;
  }
  struct sock_filter program[] = {
      FIELD(arch), /* a system call of another architecture has other numbers: kill, not misjudge */
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      FIELD(nr),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FIRST, 0, 1),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
  };
  struct sock_fprog filter = {.len = sizeof program / sizeof program[0], .filter = program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0) {
    fprintf(stderr, "%s: the kernel refuses a seccomp filter: %s\n", argv[0], strerror(errno));
    return 125;
  }
  /* A filter that does not hold would make a test of the fallback pass for nothing. */
  if (syscall(FIRST, 1, NULL) != -1 || errno != EPERM) {
    fprintf(stderr, "%s: the filter does not hold\n", argv[0]);
    return 125;
  }
  execvp(argv[1], argv + 1);
  fprintf(stderr, "%s: cannot run %s: %s\n", argv[0], argv[1], strerror(errno));
  return errno == ENOENT ? 127 : 126;
}
