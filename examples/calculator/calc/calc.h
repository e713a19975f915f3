// SPDX-License-Identifier: MIT
// Evaluates expressions of integers, such as `2 * (3 + 4)`.
#ifndef CALC_H
#define CALC_H

// A part of an expression: an operator or a parenthesis, '0' for a number, '\0'
// for the end, '?' for anything else.
struct token {
  char kind;
  long value;  // of a number
};

// Reads the token at *text, after spaces, and moves *text behind it.
struct token scan(const char** text);

// Evaluates an expression. Returns 0, or -1 if it is invalid.
int evaluate(const char* text, long* value);

#endif
