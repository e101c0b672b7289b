/* dnsprobe: ask one DNS server, from source ports of our choosing, and say of every query what came of it.
 *
 *     dnsprobe -s ADDRESS [-P PORT] -n NAME [-q A|AAAA] [-c COUNT] [-i MS] [-w MS] [-p SOURCE-PORT,...] [-e BYTES] [-t]
 *
 * The source port is the point: a stale connection tracking entry kills the queries of one source port and of no other.
 * Without -p every query has a socket, and so a port, of its own; with -p they come from those that are named, in turn.
 * -t asks over TCP. -e offers EDNS with answers of up to so many bytes (RFC 6891). COUNT queries (1) are sent, MS
 * milliseconds apart (-i, 0), each waited for (-w, 2000).
 *
 * One line of JSON for each query on stdout:
 *     {"n":1,"sourcePort":40001,"ms":0.412,"rcode":0,"answers":2,"truncated":false,"edns":false}
 *     {"n":2,"sourcePort":40002,"ms":2000.113,"error":"timeout"}
 * Exit code 0: all were answered, whatever with; 1: some were not; 2: it was called wrongly.
 *
 * It looks up no name to reach the server (ADDRESS is an address), and links to nothing. An answer counts
 * only if it comes from the server that was asked, has the query's id, and repeats its question (RFC 5452, section 9.1).
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 12, LONGEST = 65535, LONGEST_QUERY = 300, OPT = 41, MOST_PORTS = 32 };

struct question {
    struct sockaddr_storage server;
    socklen_t server_length;
    unsigned char query[LONGEST_QUERY]; /* with an id of 0 */
    size_t length;
    size_t repeated; /* how much of it an answer begins with: without the OPT record */
    long timeout; /* milliseconds */
    long source_port; /* 0: any */
    bool tcp;
};

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1000.0 + (double)at.tv_nsec / 1e6;
}

static void usage(const char *what)
{
    fprintf(stderr,
            "dnsprobe: %s\n"
            "usage: dnsprobe -s ADDRESS [-P PORT] -n NAME [-q A|AAAA] [-c COUNT] [-i MS] [-w MS] [-p SOURCE-PORT,...] "
            "[-e BYTES] [-t]\n",
            what);
    exit(2);
}

static long number(const char *text, long least, long most, const char *what)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        usage(what);
    return value;
}

/* The source ports of -p: numbers with commas between them. */
static int port_list(char *text, long *ports)
{
    int count = 0;
    for (char *one = text, *next; one; one = next) {
        next = strchr(one, ',');
        if (next)
            *next++ = 0;
        if (count == MOST_PORTS)
            usage("-p: no more than 32 ports");
        ports[count++] = number(one, 1, 65535, "-p: ports are numbers from 1 to 65535, with commas between them");
    }
    return count;
}

/* The query for a name, without its id. */
static void write_query(struct question *question, const char *name, unsigned type, unsigned edns)
{
    unsigned char *query = question->query;
    memset(query, 0, HEADER);
    query[2] = 1; /* recursion desired */
    query[5] = 1; /* one question */
    size_t at = HEADER;
    size_t whole = strlen(name);
    if (whole > 0 && name[whole - 1] == '.')
        whole--;
    if (whole > 253)
        usage("-n: the name is too long");
    for (size_t begin = 0; begin < whole;) {
        size_t end = begin;
        while (end < whole && name[end] != '.')
            end++;
        size_t label = end - begin;
        if (label == 0 || label > 63)
            usage("-n: a label of the name is empty or too long");
        query[at++] = (unsigned char)label;
        memcpy(query + at, name + begin, label);
        at += label;
        begin = end + 1;
        if (begin == whole)
            usage("-n: a label of the name is empty or too long");
    }
    query[at++] = 0;
    query[at++] = (unsigned char)(type >> 8);
    query[at++] = (unsigned char)type;
    query[at++] = 0;
    query[at++] = 1; /* IN */
    question->repeated = at;
    if (edns) {
        query[11] = 1; /* one additional record: of the root, OPT, and the size where others have their class */
        query[at++] = 0;
        query[at++] = 0;
        query[at++] = OPT;
        query[at++] = (unsigned char)(edns >> 8);
        query[at++] = (unsigned char)edns;
        memset(query + at, 0, 6); /* extended rcode, version, flags, and no options */
        at += 6;
    }
    question->length = at;
}

static const char *set_server(struct question *question, const char *address, long port)
{
    struct sockaddr_in *four = (struct sockaddr_in *)&question->server;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&question->server;
    memset(&question->server, 0, sizeof question->server);
    if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        question->server_length = sizeof *four;
        return NULL;
    }
    if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        question->server_length = sizeof *six;
        return NULL;
    }
    return "-s: not an address";
}

/* Wait until the socket is ready. False when the time is up. */
static bool ready(int descriptor, short events, double deadline)
{
    for (;;) {
        double left = deadline - now();
        if (left < 0)
            left = 0;
        struct pollfd one = {.fd = descriptor, .events = events};
        int found = poll(&one, 1, (int)left + (left > 0));
        if (found > 0)
            return true;
        if (found == 0 || errno != EINTR)
            return false;
    }
}

/* A socket of its own that is connected to the server, so that only the server's packets come in. -1: errno says why. */
static int open_socket(const struct question *question, double deadline)
{
    int family = question->server.ss_family;
    int kind = question->tcp ? SOCK_STREAM : SOCK_DGRAM;
    int descriptor = socket(family, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0)
        return -1;
    int saved;
    if (question->source_port) {
        int on = 1;
        struct sockaddr_storage own;
        memset(&own, 0, sizeof own);
        own.ss_family = (sa_family_t)family;
        uint16_t port = htons((uint16_t)question->source_port);
        if (family == AF_INET)
            ((struct sockaddr_in *)&own)->sin_port = port;
        else
            ((struct sockaddr_in6 *)&own)->sin6_port = port;
        /* Over UDP a port is not shared: answers to somebody else's queries would come to us. */
        if ((question->tcp && setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
            || bind(descriptor, (struct sockaddr *)&own, question->server_length) < 0)
            goto failed;
    }
    if (connect(descriptor, (const struct sockaddr *)&question->server, question->server_length) < 0) {
        if (errno != EINPROGRESS)
            goto failed;
        int error = ETIMEDOUT;
        socklen_t length = sizeof error;
        if (!ready(descriptor, POLLOUT, deadline)) {
            errno = ETIMEDOUT;
            goto failed;
        }
        if (getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
            goto failed;
        if (error) {
            errno = error;
            goto failed;
        }
    }
    return descriptor;
failed:
    saved = errno;
    close(descriptor);
    errno = saved;
    return -1;
}

static unsigned local_port(int descriptor)
{
    struct sockaddr_storage own;
    socklen_t length = sizeof own;
    if (getsockname(descriptor, (struct sockaddr *)&own, &length) < 0)
        return 0;
    return own.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&own)->sin_port)
                                    : ntohs(((struct sockaddr_in6 *)&own)->sin6_port);
}

/* An id that is not guessed: of the kernel's randomness, else of the clock. */
static uint16_t new_id(void)
{
    uint16_t id;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    id = (uint16_t)((unsigned long)at.tv_nsec >> 4 ^ (unsigned long)at.tv_sec ^ (unsigned long)getpid() << 7);
    FILE *random = fopen("/dev/urandom", "rb");
    if (random) {
        uint16_t better;
        if (fread(&better, sizeof better, 1, random) == 1)
            id = better;
        fclose(random);
    }
    return id;
}

/* Whether it is the answer to this query: its id, a response, and the same question. */
static bool answers(const unsigned char *reply, size_t length, const unsigned char *query, size_t asked)
{
    if (length < asked || memcmp(reply, query, 2) != 0 || !(reply[2] & 0x80) || reply[4] != 0 || reply[5] != 1)
        return false;
    for (size_t at = HEADER; at < asked; at++) {
        unsigned char one = reply[at], other = query[at];
        if (one >= 'A' && one <= 'Z')
            one = (unsigned char)(one - 'A' + 'a'); /* names are equal whatever their case is */
        if (other >= 'A' && other <= 'Z')
            other = (unsigned char)(other - 'A' + 'a');
        if (one != other)
            return false;
    }
    return true;
}

/* Whether there is an OPT record among those that follow the question, which ends at `at`. */
static bool has_opt(const unsigned char *reply, size_t length, size_t at)
{
    unsigned records = 0;
    for (size_t field = 6; field < HEADER; field += 2)
        records += (unsigned)reply[field] << 8 | reply[field + 1];
    for (; records > 0; records--) {
        while (at < length && reply[at] != 0 && reply[at] < 0xc0) /* labels, up to the root or a pointer */
            at += 1 + (size_t)reply[at];
        at += at < length && reply[at] != 0 ? 2 : 1;
        if (at + 10 > length)
            return false;
        if (reply[at] == 0 && reply[at + 1] == OPT)
            return true;
        at += 10 + ((size_t)reply[at + 8] << 8 | reply[at + 9]);
    }
    return false;
}

/* Read exactly that much from a TCP connection. NULL, or why not. */
static const char *read_whole(int descriptor, unsigned char *into, size_t wanted, double deadline)
{
    size_t had = 0;
    while (had < wanted) {
        if (!ready(descriptor, POLLIN, deadline))
            return "timeout";
        ssize_t got = recv(descriptor, into + had, wanted - had, 0);
        if (got == 0)
            return "the server closed the connection";
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            return strerror(errno);
        if (got > 0)
            had += (size_t)got;
    }
    return NULL;
}

/* Wait for the answer. NULL and its length, or why there is none. */
static const char *await(const struct question *question, int descriptor, const unsigned char *query,
                         unsigned char *reply, size_t *length, double deadline)
{
    for (;;) {
        if (question->tcp) {
            unsigned char prefix[2];
            const char *why = read_whole(descriptor, prefix, 2, deadline);
            if (why)
                return why;
            *length = (size_t)prefix[0] << 8 | prefix[1];
            why = read_whole(descriptor, reply, *length, deadline);
            if (why)
                return why;
        } else {
            if (!ready(descriptor, POLLIN, deadline))
                return "timeout";
            ssize_t got = recv(descriptor, reply, LONGEST, 0);
            if (got < 0) {
                if (errno == EINTR || errno == EAGAIN)
                    continue;
                return strerror(errno); /* refused, for one: an ICMP came back */
            }
            *length = (size_t)got;
        }
        if (answers(reply, *length, query, question->repeated))
            return NULL;
        if (now() >= deadline)
            return "timeout";
    }
}

/* Ask once, and print what came of it. True when it was answered. */
static bool ask(const struct question *question, long number)
{
    static unsigned char reply[LONGEST + 1];
    unsigned char message[2 + LONGEST_QUERY];
    unsigned char *query = message + 2;
    memcpy(query, question->query, question->length);
    uint16_t id = new_id();
    query[0] = (unsigned char)(id >> 8);
    query[1] = (unsigned char)id;
    message[0] = (unsigned char)(question->length >> 8);
    message[1] = (unsigned char)question->length;

    double begun = now(), deadline = begun + (double)question->timeout;
    const char *why = NULL;
    size_t length = 0;
    unsigned port = (unsigned)question->source_port;
    int descriptor = open_socket(question, deadline);
    if (descriptor < 0) {
        why = errno == ETIMEDOUT ? "timeout" : strerror(errno);
    } else {
        port = local_port(descriptor);
        const unsigned char *from = question->tcp ? message : query;
        size_t size = question->length + (question->tcp ? 2 : 0);
        ssize_t sent = send(descriptor, from, size, MSG_NOSIGNAL);
        if (sent != (ssize_t)size)
            why = sent < 0 ? strerror(errno) : "the query was not sent whole";
        else
            why = await(question, descriptor, query, reply, &length, deadline);
        close(descriptor);
    }
    double took = now() - begun;
    if (why)
        printf("{\"n\":%ld,\"sourcePort\":%u,\"ms\":%.3f,\"error\":\"%s\"}\n", number, port, took, why);
    else
        printf("{\"n\":%ld,\"sourcePort\":%u,\"ms\":%.3f,\"rcode\":%u,\"answers\":%u,\"truncated\":%s,\"edns\":%s}\n",
               number, port, took, reply[3] & 0x0fu, (unsigned)reply[6] << 8 | reply[7],
               reply[2] & 0x02 ? "true" : "false", has_opt(reply, length, question->repeated) ? "true" : "false");
    fflush(stdout);
    return why == NULL;
}

int main(int count, char **words)
{
    struct question question = {.timeout = 2000};
    const char *server = NULL, *name = NULL;
    long port = 53, times = 1, interval = 0;
    long ports[MOST_PORTS];
    int held = 0;
    unsigned type = 1, edns = 0;
    int option;
    while ((option = getopt(count, words, "s:P:n:q:c:i:w:p:e:t")) != -1) {
        switch (option) {
        case 's':
            server = optarg;
            break;
        case 'P':
            port = number(optarg, 1, 65535, "-P: a port is a number from 1 to 65535");
            break;
        case 'n':
            name = optarg;
            break;
        case 'q':
            if (strcmp(optarg, "A") != 0 && strcmp(optarg, "AAAA") != 0)
                usage("-q: A or AAAA");
            type = strcmp(optarg, "A") == 0 ? 1 : 28;
            break;
        case 'c':
            times = number(optarg, 1, 1000000, "-c: a number from 1 to 1000000");
            break;
        case 'i':
            interval = number(optarg, 0, 60000, "-i: milliseconds, up to 60000");
            break;
        case 'w':
            question.timeout = number(optarg, 1, 60000, "-w: milliseconds, from 1 to 60000");
            break;
        case 'p':
            held = port_list(optarg, ports);
            break;
        case 'e':
            edns = (unsigned)number(optarg, 512, 4096, "-e: bytes, from 512 to 4096");
            break;
        case 't':
            question.tcp = true;
            break;
        default:
            usage("there is no such option, or it lacks its value");
        }
    }
    if (!server || !name || optind != count)
        usage("a server (-s) and a name (-n), and nothing else");
    const char *why = set_server(&question, server, port);
    if (why)
        usage(why);
    write_query(&question, name, type, edns);
    bool all = true;
    for (long n = 1; n <= times; n++) {
        if (n > 1 && interval) {
            struct timespec pause = {.tv_sec = interval / 1000, .tv_nsec = interval % 1000 * 1000000};
            nanosleep(&pause, NULL);
        }
        if (held)
            question.source_port = ports[(n - 1) % held];
        all = ask(&question, n) && all;
    }
    return all ? 0 : 1;
}
