/* OpenMP: a team of threads that waits at barriers, before the freeze and after. */
#include <omp.h>
#include <stdio.h>
#include <unistd.h>

enum { SIZE = 1 << 20 };
static double values[SIZE];

static double sum(void) {
    double sum = 0;
#pragma omp parallel for reduction(+ : sum) schedule(static)
    for (int i = 0; i < SIZE; i++)
        sum += values[i];
    return sum;
}

int main(void) {
    omp_set_dynamic(0);
    omp_set_num_threads(4);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < SIZE; i++)
        values[i] = i % 17;
    double before = sum();
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (int tick = 1;; tick++) {
        printf("tick %d\n", tick);
        if (access("/srv/go", F_OK) == 0)
            break;
        usleep(25000);
    }
    puts("done");
    int threads = 0;
#pragma omp parallel
#pragma omp atomic
    threads++;
    return threads == 4 && sum() == before ? 7 : 1;
}
