/* Preloaded into a process and its children: look-ups and connections that leave the machine are logged to the
   file NETWORK_LOG and fail, whichever library asks. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *what, const char *name) {
    const char *file = getenv("NETWORK_LOG");
    int log = file ? open(file, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    char line[512];
    if (log < 0) return;
    int length = snprintf(line, sizeof line, "%s %s\n", what, name);
    if (write(log, line, length) != length) perror(file);
    close(log);
}

static int is_local_name(const char *name) {
    char own[256] = "";
    gethostname(own, sizeof own - 1);
    return !name || !strcmp(name, "localhost") || !strcmp(name, own) || !strncmp(name, "127.", 4) ||
           !strcmp(name, "::1") || !strcmp(name, "0.0.0.0") || !strcmp(name, "::");
}

static int leaves(const struct sockaddr *address) {
    char text[INET6_ADDRSTRLEN] = "";
    if (!address) return 0;
    if (address->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, text, sizeof text);
    else if (address->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, sizeof text);
    else
        return 0;
    if (is_local_name(text) || !strncmp(text, "::ffff:127.", 11)) return 0;
    note("connection to", text);
    return 1;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    if (is_local_name(node)) return real(node, service, hints, found);
    note("look-up of", node);
    return EAI_AGAIN;
}

struct hostent *gethostbyname(const char *name) {
    struct hostent *(*real)(const char *) = dlsym(RTLD_NEXT, "gethostbyname");
    if (is_local_name(name)) return real(name);
    note("look-up of", name);
    h_errno = TRY_AGAIN;
    return NULL;
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    if (!leaves(address)) return real(socket, address, length);
    errno = ENETUNREACH;
    return -1;
}

ssize_t sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length) {
    ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
    if (!leaves(address)) return real(socket, data, size, flags, address, length);
    errno = ENETUNREACH;
    return -1;
}
