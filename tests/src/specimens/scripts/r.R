# A model that is fitted before and after, and a connection that stays open.
set.seed(1)
x <- rnorm(1000)
y <- 2 * x + rnorm(1000)
before <- coef(lm(y ~ x))
out <- file("/srv/r-file", "w")
writeLines("one", out)
say <- function(...) { cat(..., "\n", sep = ""); flush(stdout()) }
say("ready")
tick <- 0
repeat {
    tick <- tick + 1
    say("tick ", tick)
    if (file.exists("/srv/go")) break
    Sys.sleep(0.025)
}
say("done")
writeLines("two", out)
close(out)
stopifnot(identical(before, coef(lm(y ~ x))))
stopifnot(identical(readLines("/srv/r-file"), c("one", "two")))
quit(status = 7)
