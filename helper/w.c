/*
 * /w/w COMMAND ARGUMENT...: waits until the container is in the network, then becomes COMMAND.
 *
 * "In the network" is: interface ethwe is up and has the route for multicast, which comes last. Files beside this program
 * change that: "no-multicast" (no such route is made), "no-wait" (there is no such interface). The router writes them.
 *
 * It runs in any image, so it needs none of it: no library, no shell; it calls the kernel itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
static long call(long n, long a, long b, long c, long d, long e) {
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return n;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp\n bl run\n");
static long call(long n, long a, long b, long c, long d, long e) {
  register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d, x4 __asm__("x4") = e;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
#endif
#define CALL(name, a, b, c, d, e) call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define SIGNAL(n) (1ul << ((n) - 1))
#define SIGNALS sizeof(unsigned long)

static int length(const char *s) { int n = 0; while (s[n]) n++; return n; }
static void say(const char *s) { CALL(write, 2, s, length(s), 0, 0); }
static int exists(const char *path) { return CALL(faccessat, AT_FDCWD, path, 0, 0, 0) == 0; }
static int begins(const char *s, const char *with) { while (*with) if (*s++ != *with++) return 0; return 1; }

static int is_path(const char *s) { while (*s) if (*s++ == '/') return 1; return 0; }

static __attribute__((noreturn)) void end(int status) { for (;;) CALL(exit_group, status, 0, 0, 0, 0); }

/* As /proc/net/route shows it: 224.0.0.0 over ethwe. */
static int routed(void) {
  static char text[65536];
  long fd = CALL(openat, AT_FDCWD, "/proc/net/route", O_RDONLY | O_CLOEXEC, 0, 0), size = 0, n;
  while ((n = CALL(read, fd, text + size, sizeof text - 1 - size, 0, 0)) > 0) size += n;
  CALL(close, fd, 0, 0, 0, 0);
  text[size] = 0;
  for (char *line = text; *line; ) {
    if (begins(line, "ethwe\t000000E0\t")) return 1;
    while (*line && *line++ != '\n');
  }
  return 0;
}

static int ready(int any) {
  static struct ifreq request = { .ifr_name = "ethwe" };
  if (exists("/w/no-wait")) return 1;
  if (CALL(ioctl, any, SIOCGIFFLAGS, &request, 0, 0) < 0 || !(request.ifr_flags & IFF_UP)) return 0;
  return exists("/w/no-multicast") || routed();
}

/* Until it is ready; signals, which the first process of a container would not feel, end the waiting. */
static void wait_for_network(void) {
  static struct sockaddr_nl groups = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_ROUTE };
  static char event[65536];
  unsigned long ending = SIGNAL(SIGHUP) | SIGNAL(SIGINT) | SIGNAL(SIGQUIT) | SIGNAL(SIGTERM), before = 0;
  CALL(rt_sigprocmask, SIG_BLOCK, &ending, &before, SIGNALS, 0);
  int any = CALL(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0, 0);
  struct pollfd of[2] = {
    { .fd = CALL(signalfd4, -1, &ending, SIGNALS, O_CLOEXEC, 0), .events = POLLIN },
    { .fd = CALL(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE, 0, 0), .events = POLLIN },
  };
  int told = CALL(bind, of[1].fd, &groups, sizeof groups, 0, 0) == 0;
  while (!ready(any)) {
    /* Where nobody tells of changes it looks again soon; where somebody does, for the files' sake. */
    struct { long s, ns; } rest = { told ? 1 : 0, told ? 0 : 20000000 };
    of[0].revents = of[1].revents = 0;
    CALL(ppoll, of, 2, &rest, 0, 0);
    if (of[0].revents & POLLIN) {
      CALL(read, of[0].fd, event, sizeof event, 0, 0);
      end(128 + *(int *)event);
    }
    while (CALL(read, of[1].fd, event, sizeof event, 0, 0) > 0);
  }
  CALL(rt_sigprocmask, SIG_SETMASK, &before, 0, SIGNALS, 0);
}

/* Tries every folder of PATH, as a shell does; returns why it is still here. */
static long become(char **argv, char **env) {
  static char path[4096];
  const char *name = argv[0], *folders = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  long why = -ENOENT;
  if (is_path(name)) return CALL(execve, name, argv, env, 0, 0);
  for (char **e = env; *e; e++) if (begins(*e, "PATH=")) folders = *e + 5;
  for (; *name; folders++) {
    int n = 0;
    while (*folders && *folders != ':') { if (n < 2048) path[n++] = *folders; folders++; }
    if (n == 0) path[n++] = '.';
    path[n++] = '/';
    for (const char *c = name; *c && n < (int)sizeof path - 1; ) path[n++] = *c++;
    path[n] = 0;
    long error = CALL(execve, path, argv, env, 0, 0);
    if (error != -ENOENT && error != -ENOTDIR && why == -ENOENT) why = error;
    if (!*folders) break;
  }
  return why;
}

__attribute__((used, noreturn)) void run(long *stack) {
  long argc = stack[0];
  char **argv = (char **)(stack + 1), **env = argv + argc + 1;
  if (argc < 2) { say("usage: /w/w COMMAND [ARGUMENT...]\n"); end(1); }
  wait_for_network();
  long why = become(argv + 1, env);
  say("exec: \""); say(argv[1]); say("\": ");
  say(why == -ENOENT || why == -ENOTDIR
    ? (is_path(argv[1]) ? "no such file or directory" : "executable file not found in $PATH")
    : why == -EACCES ? "permission denied" : why == -ENOEXEC ? "exec format error" : why == -E2BIG ? "argument list too long" : "cannot be executed");
  say("\n");
  end(1);
}
