/* The clients of the fan-out bench: one process, one epoll, many connections that read and count.
 *
 *     load PORT CONNECTIONS COUNTER [--path P] [--tcp] [--send TEXT] [--expect N] [--deflate] [--lines]
 *
 * It connects to 127.0.0.1 from eight loopback addresses, upgrades to WebSocket (not with --tcp: then frames come at
 * once), sends TEXT as one message on each connection, waits for N messages on each, and tells {"connected": ...}.
 * Then it reads and counts. Standard input has commands, one a line; each is answered by one line of JSON:
 *
 *     reset MODE   begin anew. 0: every message is an event. 1: only messages that end with a stamp. 2: and their
 *                  latencies are kept.
 *     tell         what was counted since (reads: the calls of recv() that brought events), latencies in milliseconds
 *
 * In modes 0 and 1, which are for measuring CPU, it naps after each look at its sockets, so no send has to wake it. Waking
 * a process is charged to the sender, and a server that is slower than its load paid for it three times as often as one
 * that is not; with clients on other machines none does.
 *
 * COUNTER is a file whose first eight bytes are the number of events read since the start: a server may map or read it
 * to see how far its clients are. A stamp is the last member of an event, "sent_ns":N, the sender's CLOCK_MONOTONIC;
 * an event's moment of reading is that of the end of the recv() that had its last byte. An event is "last" read
 * when as many clients as there are have it.
 *
 * A message is a data frame. --lines: a frame has several, one a line, and {} is no message but a ping that wants one
 * back (Centrifugo, centrifuge); so TEXT may have several commands, and N counts their answers, however they are joined.
 * The end of standard input ends the process, and so does an hour.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING, UPGRADING, OPEN, CLOSED };
enum { ADDRESSES = 8, IN_FLIGHT = 64, LIFETIME_SECONDS = 3600, NAP_NS = 300000 };
#define READ_BYTES (256 * 1024)
#define MOST_CARRIED (4 * 1024 * 1024)

typedef struct {
    int fd, state;
    unsigned char *carry; /* the beginning of a frame, or of the answer to the upgrade */
    size_t carried, carry_size;
    uint64_t messages, events;
} Client;

static Client *clients;
static int wanted, started, opened, greeted, closed, mode, is_tcp, is_lines, expect;
static const char *path = "/", *to_send = NULL, *extensions = "";
static int port, poller;
static uint64_t events, frames, others, bytes, reads, base_closed;
static volatile uint64_t *counter;
static unsigned char *buffer;
static uint64_t reset_ns;

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Latencies: 32 buckets for each power of two of nanoseconds, so a quantile is off by 1.6 percent at most. */

#define BUCKETS (64 * 40)
typedef struct {
    uint64_t counts[BUCKETS], total, most;
} Histogram;
static Histogram each, last;

static void keep(Histogram *histogram, uint64_t value) {
    int power = value < 64 ? 0 : 58 - __builtin_clzll(value);
    size_t bucket = (size_t)power * 64 + (value >> power);
    histogram->counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    histogram->total++;
    if (value > histogram->most) histogram->most = value;
}

static double quantile_ms(const Histogram *histogram, double share) {
    uint64_t rank = (uint64_t)(share * (double)histogram->total + 0.999999), seen = 0;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen >= rank && seen) {
            size_t power = bucket / 64;
            uint64_t least = (uint64_t)(bucket - power * 64) << power;
            double middle = (double)least + (double)(1ull << power) / 2, most = (double)histogram->most;
            return (middle < most ? middle : most) / 1e6;
        }
    }
    return 0;
}

/* Events under way: by stamp, how many clients have it. Linear probing; an entry goes when the last client has it. */

#define UNDER_WAY (1u << 16)
static struct {
    uint64_t stamp;
    int seen;
} under_way[UNDER_WAY];
static unsigned int unfinished;

static unsigned int place_of(uint64_t stamp) { return (unsigned int)((stamp * 0x9E3779B97F4A7C15ull) >> 48); }

static void note_stamp(uint64_t stamp, uint64_t now) {
    unsigned int at = place_of(stamp);
    uint64_t way = now > stamp ? now - stamp : 0;
    if (stamp < reset_ns) return;
    keep(&each, way);
    while (under_way[at].stamp && under_way[at].stamp != stamp) at = (at + 1) % UNDER_WAY;
    if (!under_way[at].stamp) {
        if (unfinished >= UNDER_WAY / 2) return;
        unfinished++;
        under_way[at].stamp = stamp;
        under_way[at].seen = 0;
    }
    if (++under_way[at].seen < wanted) return;
    keep(&last, way);
    unfinished--;
    /* Close the gap: move up whoever would not be found across it. */
    for (unsigned int next = (at + 1) % UNDER_WAY;; next = (next + 1) % UNDER_WAY) {
        if (!under_way[next].stamp) break;
        unsigned int home = place_of(under_way[next].stamp);
        if (((next - home) % UNDER_WAY) >= ((next - at) % UNDER_WAY)) {
            under_way[at] = under_way[next];
            at = next;
        }
    }
    under_way[at].stamp = 0;
}

/* The stamp at the end of a message, or 0. */
static uint64_t stamp_of(const unsigned char *text, size_t size) {
    static const char name[] = "\"sent_ns\":";
    const size_t name_size = sizeof name - 1;
    uint64_t value = 0, unit = 1;
    size_t end = size;
    while (end && (text[end - 1] == '}' || text[end - 1] == '\n')) end--;
    size_t at = end;
    while (at && text[at - 1] >= '0' && text[at - 1] <= '9') {
        value += (uint64_t)(text[--at] - '0') * unit;
        unit *= 10;
    }
    if (at == end || at < name_size || memcmp(text + at - name_size, name, name_size)) return 0;
    return value;
}

static void write_masked(int fd, int opcode, const void *data, size_t size) {
    /* The mask is zero, so the payload is as it was. Everything that is sent here is small and fits the socket. */
    unsigned char frame[16384 + 8] = {(unsigned char)(0x80 | opcode), (unsigned char)(0x80 | size)};
    size_t head = 6;
    if (size > 16384) return;
    if (size > 125) {
        frame[1] = 0x80 | 126;
        frame[2] = (unsigned char)(size >> 8);
        frame[3] = (unsigned char)size;
        head = 8;
    }
    memcpy(frame + head, data, size);
    if (send(fd, frame, head + size, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET) fail("send");
}

static void count_message(Client *client, const unsigned char *text, size_t size, uint64_t now) {
    if (++client->messages == (uint64_t)expect) greeted++;
    if (mode) {
        uint64_t stamp = stamp_of(text, size);
        if (!stamp) {
            others++;
            return;
        }
        if (mode == 2) note_stamp(stamp, now);
    }
    events++;
    client->events++;
}

static void close_client(Client *client) {
    if (client->state == CLOSED) return;
    client->state = CLOSED;
    closed++;
    close(client->fd);
}

/* Whole frames of `data`; returns how many bytes they were. */
static size_t take_frames(Client *client, const unsigned char *data, size_t size, uint64_t now) {
    size_t at = 0;
    while (size - at >= 2) {
        uint64_t length = data[at + 1] & 0x7F;
        size_t head = 2;
        if (length == 126) {
            if (size - at < 4) break;
            length = (uint64_t)data[at + 2] << 8 | data[at + 3];
            head = 4;
        } else if (length == 127) {
            if (size - at < 10) break;
            length = 0;
            for (int i = 2; i < 10; i++) length = length << 8 | data[at + i];
            head = 10;
        }
        if (length > size - at - head) break;
        const unsigned char *payload = data + at + head;
        int opcode = data[at] & 0x0F;
        at += head + length;
        if (opcode == 0x9) {
            write_masked(client->fd, 0xA, payload, length);
            continue;
        }
        if (opcode == 0x8) {
            close_client(client);
            return size;
        }
        if (opcode > 0x2) continue;
        frames++;
        if (!is_lines) {
            count_message(client, payload, length, now);
            continue;
        }
        const unsigned char *end = payload + length;
        while (payload < end) {
            const unsigned char *stop = memchr(payload, '\n', (size_t)(end - payload));
            if (!stop) stop = end;
            if (stop - payload == 2 && !memcmp(payload, "{}", 2))
                write_masked(client->fd, 0x1, "{}", 2);
            else if (stop > payload)
                count_message(client, payload, (size_t)(stop - payload), now);
            payload = stop + 1;
        }
    }
    return at;
}

static void open_client(Client *client) {
    client->state = OPEN;
    opened++;
    if (!expect) greeted++;
    if (to_send) write_masked(client->fd, 0x1, to_send, strlen(to_send));
}

static void read_client(Client *client) {
    memcpy(buffer, client->carry, client->carried);
    ssize_t got = recv(client->fd, buffer + client->carried, READ_BYTES, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        if (client->state != OPEN) {
            fprintf(stderr, "load: a connection ended before it was open\n");
            exit(1);
        }
        close_client(client);
        return;
    }
    uint64_t now = mode == 2 ? clock_ns(CLOCK_MONOTONIC) : 0;
    size_t size = client->carried + (size_t)got, done = 0;
    bytes += (uint64_t)got;
    if (client->state == UPGRADING) {
        unsigned char *end = memmem(buffer, size, "\r\n\r\n", 4);
        if (end) {
            if (size < 12 || memcmp(buffer, "HTTP/1.1 101", 12)) {
                fprintf(stderr, "load: the upgrade was answered: %.*s\n", (int)(end - buffer), buffer);
                exit(1);
            }
            done = (size_t)(end - buffer) + 4;
            open_client(client);
        }
    }
    if (client->state == OPEN) {
        uint64_t before = events;
        done += take_frames(client, buffer + done, size - done, now);
        if (events != before) {
            *counter += events - before;
            reads++;
        }
    }
    if (client->state == CLOSED) return;
    client->carried = size - done;
    if (!client->carried) return;
    if (client->carried > client->carry_size) {
        if (client->carried > MOST_CARRIED) {
            fprintf(stderr, "load: a frame of more than %d bytes\n", MOST_CARRIED);
            exit(1);
        }
        client->carry_size = client->carried * 2;
        client->carry = realloc(client->carry, client->carry_size);
        if (!client->carry) fail("realloc");
    }
    memcpy(client->carry, buffer + done, client->carried);
}

static void begin_client(Client *client, int number) {
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number % ADDRESSES));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) fail("socket");
    /* The port is then chosen with the whole connection in view, and no address runs out of them. */
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(client->fd, (struct sockaddr *)&from, sizeof from)) fail("bind");
    if (connect(client->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
    client->state = CONNECTING;
    struct epoll_event interest = {.events = EPOLLOUT, .data.ptr = client};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &interest)) fail("epoll_ctl");
}

static void connected_client(Client *client) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        errno = error;
        fail("connect");
    }
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &interest)) fail("epoll_ctl");
    if (is_tcp) {
        open_client(client);
        return;
    }
    char request[1024];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
                          path, port, extensions);
    if (send(client->fd, request, (size_t)length, MSG_NOSIGNAL) != length) fail("send");
    client->state = UPGRADING;
}

static void reset(int new_mode) {
    mode = new_mode;
    events = frames = others = bytes = reads = 0;
    base_closed = (uint64_t)closed;
    memset(&each, 0, sizeof each);
    memset(&last, 0, sizeof last);
    memset(under_way, 0, sizeof under_way);
    unfinished = 0;
    reset_ns = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < wanted; i++) clients[i].events = 0;
}

static void tell_latencies(const char *name, const Histogram *histogram) {
    printf(", \"%s\": {\"count\": %llu, \"p50\": %.4f, \"p99\": %.4f, \"most\": %.4f}", name,
           (unsigned long long)histogram->total, quantile_ms(histogram, 0.50), quantile_ms(histogram, 0.99),
           (double)histogram->most / 1e6);
}

static void tell(void) {
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < wanted; i++) {
        if (clients[i].events < least) least = clients[i].events;
        if (clients[i].events > most) most = clients[i].events;
    }
    printf("{\"events\": %llu, \"frames\": %llu, \"others\": %llu, \"bytes\": %llu, \"reads\": %llu, \"closed\": %llu, \"least\": %llu, "
           "\"most\": %llu, \"unfinished\": %u, \"seconds\": %.6f, \"cpu_seconds\": %.6f",
           (unsigned long long)events, (unsigned long long)frames, (unsigned long long)others,
           (unsigned long long)bytes, (unsigned long long)reads, (unsigned long long)(uint64_t)closed - base_closed, (unsigned long long)least,
           (unsigned long long)most, unfinished, (double)(clock_ns(CLOCK_MONOTONIC) - reset_ns) / 1e9,
           (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9);
    tell_latencies("each_ms", &each);
    tell_latencies("last_ms", &last);
    printf("}\n");
}

static void obey(void) {
    static char line[256];
    static size_t have;
    ssize_t got = read(0, line + have, sizeof line - 1 - have);
    if (got <= 0) exit(0);
    have += (size_t)got;
    line[have] = 0;
    for (char *end; (end = memchr(line, '\n', have));) {
        *end = 0;
        if (!strncmp(line, "reset ", 6)) {
            reset(atoi(line + 6));
            printf("{\"reset\": %d}\n", mode);
        } else {
            tell();
        }
        fflush(stdout);
        have -= (size_t)(end + 1 - line);
        memmove(line, end + 1, have + 1);
    }
}

int main(int count, char **arguments) {
    if (count < 4) {
        fprintf(stderr, "load: PORT CONNECTIONS COUNTER [options]\n");
        return 2;
    }
    port = atoi(arguments[1]);
    wanted = atoi(arguments[2]);
    for (int i = 4; i < count; i++) {
        if (!strcmp(arguments[i], "--tcp")) is_tcp = 1;
        else if (!strcmp(arguments[i], "--lines")) is_lines = 1;
        else if (!strcmp(arguments[i], "--deflate")) extensions = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        else if (!strcmp(arguments[i], "--path") && i + 1 < count) path = arguments[++i];
        else if (!strcmp(arguments[i], "--send") && i + 1 < count) to_send = arguments[++i];
        else if (!strcmp(arguments[i], "--expect") && i + 1 < count) expect = atoi(arguments[++i]);
        else {
            fprintf(stderr, "load: what is %s?\n", arguments[i]);
            return 2;
        }
    }
    alarm(LIFETIME_SECONDS);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int file = open(arguments[3], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, 8)) fail(arguments[3]);
    counter = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    clients = calloc((size_t)wanted, sizeof *clients);
    buffer = malloc(MOST_CARRIED + READ_BYTES);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (counter == MAP_FAILED || !clients || !buffer || poller < 0) fail("start");
    *counter = 0;
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &interest)) fail("epoll_ctl");
    uint64_t began = clock_ns(CLOCK_MONOTONIC);
    int told = 0;
    for (;;) {
        while (started < wanted && started - opened < IN_FLIGHT) {
            begin_client(&clients[started], started);
            started++;
        }
        if (!told && greeted == wanted) {
            told = 1;
            reset(0);
            printf("{\"connected\": %d, \"seconds\": %.6f}\n", wanted, (double)(reset_ns - began) / 1e9);
            fflush(stdout);
        }
        struct epoll_event ready[512];
        int number = epoll_wait(poller, ready, 512, -1);
        if (number < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < number; i++) {
            Client *client = ready[i].data.ptr;
            if (!client) obey();
            else if (client->state == CONNECTING) connected_client(client);
            else if (client->state != CLOSED) read_client(client);
        }
        if (told && mode != 2) {
            struct timespec nap = {.tv_nsec = NAP_NS};
            nanosleep(&nap, NULL);
        }
    }
}
