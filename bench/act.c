/* The action of the latency benchmark: stamps the wall clock as its first act. Usage: act FILE ID */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char** argv) {
    struct timespec now;
    char line[256];
    clock_gettime(CLOCK_REALTIME, &now);
    if (argc < 3) return 2;
    const int out = open(argv[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    const int size = snprintf(line, sizeof line, "%.100s %lld%09ld\n", argv[2], (long long)now.tv_sec, now.tv_nsec);
    return out < 0 || write(out, line, (size_t)size) != size;
}
