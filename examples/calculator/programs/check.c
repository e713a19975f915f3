// SPDX-License-Identifier: MIT
// Checks that the encoded results on stdin are those of the expressions in the
// file that is the argument.
#include <stdlib.h>

#include "calc.h"
#include "pack.h"

int main(int count, char** arguments) {
  FILE* results = tmpfile();
  FILE* expressions = count == 2 ? fopen(arguments[1], "r") : NULL;
  char line[256];
  char result[256];
  int lines = 0;
  if (!results || !expressions || unpack(stdin, results)) return 1;
  rewind(results);
  while (fgets(line, sizeof line, expressions)) {
    long value;
    if (evaluate(line, &value) || !fgets(result, sizeof result, results) ||
        strtol(result, NULL, 10) != value) {
      fprintf(stderr, "wrong result: %s", line);
      return 1;
    }
    ++lines;
  }
  printf("%d results are right\n", lines);
  return 0;
}
