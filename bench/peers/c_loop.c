/* The floor: a bare loop of send() over the connections, each tick's frames built once and sent by one call each.
 *
 *     c_loop COUNTER TEMPLATE
 *
 * It accepts whoever connects (no upgrade: frames come at once) and is told `run EVENTS SECONDS RATE` on standard
 * input, as every server of this bench (bench/peers/ticks.py says how it paces). No epoll, no buffers of its own:
 * what the socket does not take at once is waited for.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CLIENTS = 65536, TICKS_AHEAD = 2, LIFETIME_SECONDS = 3600 };

static int clients[MOST_CLIENTS], joined;
static volatile const uint64_t *counter;
static const char *template;
static char *frames;

static void fail(const char *what) {
    fprintf(stderr, "c_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t moment) {
    struct timespec until = {.tv_sec = (time_t)(moment / 1000000000u), .tv_nsec = (long)(moment % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

static size_t build(int events) {
    size_t at = 0;
    for (int i = 0; i < events; i++) {
        char stamp[32];
        int digits = snprintf(stamp, sizeof stamp, "%llu}", (unsigned long long)now_ns());
        size_t text = strlen(template), size = text + (size_t)digits;
        frames[at++] = (char)0x81;
        frames[at++] = 126;
        frames[at++] = (char)(size >> 8);
        frames[at++] = (char)size;
        memcpy(frames + at, template, text);
        memcpy(frames + at + text, stamp, (size_t)digits);
        at += size;
    }
    return at;
}

static void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) return;
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, -1);
            continue;
        }
        data += sent;
        size -= (size_t)sent;
    }
}

static void run(int events, double seconds, double rate) {
    uint64_t began = now_ns(), end = began + (uint64_t)(seconds * 1e9), due = began, base = *counter, ticks = 0;
    uint64_t a_tick = (uint64_t)events * (uint64_t)joined;
    while (now_ns() < end) {
        if (rate > 0) {
            sleep_until(due);
            due += (uint64_t)(1e9 / rate);
        } else {
            while (ticks * a_tick >= *counter - base + TICKS_AHEAD * a_tick && now_ns() < end)
                sleep_until(now_ns() + 200000);
        }
        size_t size = build(events);
        for (int i = 0; i < joined; i++) send_all(clients[i], frames, size);
        ticks++;
    }
    printf("{\"ticks\": %llu, \"events\": %llu, \"clients\": %d, \"seconds\": %.6f}\n", (unsigned long long)ticks,
           (unsigned long long)(ticks * (uint64_t)events), joined, (double)(now_ns() - began) / 1e9);
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "c_loop: COUNTER TEMPLATE\n");
        return 2;
    }
    alarm(LIFETIME_SECONDS);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    template = arguments[2];
    int file = open(arguments[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, 8)) fail(arguments[1]);
    counter = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    frames = malloc(1024 * (strlen(template) + 64));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (counter == MAP_FAILED || !frames || listener < 0 || bind(listener, (struct sockaddr *)&address, size) ||
        listen(listener, 1024) || getsockname(listener, (struct sockaddr *)&address, &size))
        fail("start");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        struct pollfd ready[2] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
        if (poll(ready, 2, -1) < 0) fail("poll");
        while (joined < MOST_CLIENTS) {
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0) break;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            clients[joined++] = fd;
        }
        if (ready[0].revents) {
            char line[256];
            int events;
            double seconds, rate;
            if (!fgets(line, sizeof line, stdin)) return 0;
            if (sscanf(line, "run %d %lf %lf", &events, &seconds, &rate) == 3 && events > 0 && events <= 1000)
                run(events, seconds, rate);
        }
    }
}
