// SPDX-License-Identifier: MIT
#include "calc.h"

// An expression, and its next token.
struct parser {
  const char* text;
  struct token next;
};

static int sum(struct parser* parser, long* value);

static void advance(struct parser* parser) {
  parser->next = scan(&parser->text);
}

static int operand(struct parser* parser, long* value) {
  struct token token = parser->next;
  advance(parser);
  if (token.kind == '0') {
    *value = token.value;
    return 0;
  }
  if (token.kind != '(' || sum(parser, value) || parser->next.kind != ')')
    return -1;
  advance(parser);
  return 0;
}

static int product(struct parser* parser, long* value) {
  if (operand(parser, value)) return -1;
  while (parser->next.kind == '*') {
    long factor;
    advance(parser);
    if (operand(parser, &factor)) return -1;
    *value *= factor;
  }
  return 0;
}

static int sum(struct parser* parser, long* value) {
  if (product(parser, value)) return -1;
  while (parser->next.kind == '+' || parser->next.kind == '-') {
    long sign = parser->next.kind == '+' ? 1 : -1;
    long term;
    advance(parser);
    if (product(parser, &term)) return -1;
    *value += sign * term;
  }
  return 0;
}

int evaluate(const char* text, long* value) {
  struct parser parser = {text, {'\0', 0}};
  advance(&parser);
  return sum(&parser, value) || parser.next.kind != '\0' ? -1 : 0;
}
