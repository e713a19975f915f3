// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "calc.h"

struct token scan(const char** text) {
  struct token token = {'\0', 0};
  while (isspace((unsigned char)**text)) ++*text;
  if (isdigit((unsigned char)**text)) {
    char* end;
    token.kind = '0';
    token.value = strtol(*text, &end, 10);
    *text = end;
  } else if (**text != '\0') {
    token.kind = strchr("+-*()", **text) ? **text : '?';
    ++*text;
  }
  return token;
}
