/* The process that holds a pod's namespaces open: it does nothing until SIGTERM or SIGINT, which end it.
 *
 * Freestanding and static, about a kilobyte: it is the only file of the sandbox image. The first process of a PID namespace
 * gets no signal that it neither handles nor blocks, so both are blocked and waited for. Ignoring SIGCHLD makes the kernel
 * reap what is left to it when containers share the PID namespace. */

#if defined(__x86_64__)
#define SYS_rt_sigaction 13
#define SYS_rt_sigprocmask 14
#define SYS_rt_sigtimedwait 128
#define SYS_exit_group 231
static long call(long n, long a, long b, long c, long d, long e) {
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return r;
}
#elif defined(__aarch64__)
#define SYS_rt_sigaction 134
#define SYS_rt_sigprocmask 135
#define SYS_rt_sigtimedwait 137
#define SYS_exit_group 94
static long call(long n, long a, long b, long c, long d, long e) {
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
#else
#error "the pause process is written for x86_64 and aarch64"
#endif

#define SIGINT 2
#define SIGTERM 15
#define SIGCHLD 17
#define SIG_IGN 1
#define SIG_BLOCK 0

struct action {
    unsigned long handler, flags, restorer, mask;
};

__attribute__((noreturn)) void _start(void) {
    struct action ignore = {SIG_IGN, 0, 0, 0};
    call(SYS_rt_sigaction, SIGCHLD, (long)&ignore, 0, 8, 0);
    unsigned long ends = 1UL << (SIGINT - 1) | 1UL << (SIGTERM - 1);
    call(SYS_rt_sigprocmask, SIG_BLOCK, (long)&ends, 0, 8, 0);
    for (;;)
        if (call(SYS_rt_sigtimedwait, (long)&ends, 0, 0, 8, 0) > 0)
            call(SYS_exit_group, 0, 0, 0, 0, 0);
}
