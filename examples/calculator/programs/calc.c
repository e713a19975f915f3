// SPDX-License-Identifier: MIT
// Prints the value of the expression on each line of stdin.
#include "calc.h"

#include <stdio.h>

int main(void) {
  char line[256];
  while (fgets(line, sizeof line, stdin)) {
    long value;
    if (evaluate(line, &value)) {
      fprintf(stderr, "invalid expression: %s", line);
      return 1;
    }
    printf("%ld\n", value);
  }
  return 0;
}
