# A second opinion by R's survey package (Lumley 2004). Reads phase1.csv and margins of a folder, prints name,value lines.
suppressMessages(library(survey))
folder <- commandArgs(trailingOnly = TRUE)[1]
data <- read.csv(file.path(folder, "phase1.csv"))
data$sampled <- data$sampled == 1
say <- function(name, value) cat(name, ",", format(value, digits = 15), "\n", sep = "")
report <- function(name, x) { say(paste0(name, ".estimate"), coef(x)); say(paste0(name, ".error"), as.vector(SE(x))) }

# Two phases: the units that are not observable are zeros of the first phase, all of them known. Each stratum by itself,
# variances added: with several strata of different sampling fractions the answer of survey 4.1 depends on the row order.
columns <- list(total = ~y, mean = ~emean, ratio = ~eratio, dry = ~edry, x = ~x, one = ~one, ydry = ~ydry, onedry = ~onedry)
sums <- sapply(columns, function(column) {
  parts <- sapply(split(data, data$stratum), function(d) {
    two <- twophase(id = list(~1, ~1), strata = list(NULL, ~cell2), fpc = list(~frame, NULL), subset = ~sampled,
                    data = d, method = "full")
    result <- svytotal(column, two)
    c(coef(result), vcov(result))
  })
  rowSums(parts)
})
say("total.estimate", sums[1, "total"])
say("mean.estimate", sums[1, "total"] / sums[1, "one"])
say("ratio.estimate", sums[1, "total"] / sums[1, "x"])
say("dry.estimate", sums[1, "ydry"] / sums[1, "onedry"])
for (name in c("total", "mean", "ratio", "dry")) say(paste0(name, ".error"), sqrt(sums[2, name]))

# One phase: a stratified simple random sample, with domains and design effects.
one <- svydesign(id = ~1, strata = ~stratum, fpc = ~frame, data = data)
mean_one <- svymean(~x, one, deff = "replace")
report("one.mean", mean_one)
say("one.mean.deff", as.vector(deff(mean_one)))
total_one <- svytotal(~x, one, deff = "replace")
report("one.total", total_one)
say("one.total.deff", as.vector(deff(total_one)))
report("one.ratio", svyratio(~x, ~z, one))
report("one.dry", svymean(~x, subset(one, kind == "dry")))

# Raking to two margins.
raked <- rake(one, list(~kind, ~side), list(read.csv(file.path(folder, "kind.csv")), read.csv(file.path(folder, "side.csv"))),
              control = list(maxit = 500, epsilon = 1e-10, verbose = FALSE))
for (i in seq_len(nrow(data))) say(paste0("raked.", i), weights(raked)[i])
