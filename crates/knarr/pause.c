/* The process that holds a pod's namespaces open: it does nothing, for as long as it is let.
 *
 * Freestanding and static, about a kilobyte: it is the only file of the sandbox image. As the first process of a PID
 * namespace it gets no signal that it has no handler for, so SIGTERM leaves it alone and the runtime ends it with
 * SIGKILL. Ignoring SIGCHLD makes the kernel reap what is left to it when containers share the PID namespace. */

#if defined(__x86_64__)
#define SYS_rt_sigaction 13
#define SYS_ppoll 271
static long call(long n, long a, long b, long c, long d, long e) {
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return r;
}
#elif defined(__aarch64__)
#define SYS_rt_sigaction 134
#define SYS_ppoll 73
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

#define SIGCHLD 17
#define SIG_IGN 1

struct action {
    unsigned long handler, flags, restorer, mask;
};

__attribute__((noreturn)) void _start(void) {
    struct action ignore = {SIG_IGN, 0, 0, 0};
    call(SYS_rt_sigaction, SIGCHLD, (long)&ignore, 0, 8, 0);
    for (;;)
        call(SYS_ppoll, 0, 0, 0, 0, 0); /* no descriptors, no time limit: sleeps until a signal comes */
}
