// SPDX-License-Identifier: MIT
//
// Detects the features of the CPU.
#ifndef TVIXB_CPU_H
#define TVIXB_CPU_H

typedef enum tvixb_cpu_level {
  TVIXB_CPU_PLAIN = 0,   // any CPU
  TVIXB_CPU_AVX2 = 1,    // x86-64 with AVX2 and BMI2
  TVIXB_CPU_AVX512 = 2,  // also with AVX-512 F, BW, DQ and VL
  TVIXB_CPU_NEON = 3,    // little-endian aarch64, which always has NEON
} tvixb_cpu_level;

// TVIXB_HAVE_... is defined if code for a level can be compiled.
// TVIXB_TARGET_... is the attribute of its functions.
#if defined(__x86_64__)
#define TVIXB_HAVE_AVX2 1
#define TVIXB_HAVE_AVX512 1
#define TVIXB_TARGET_AVX2 __attribute__((target("avx2,bmi2")))
#define TVIXB_AVX512_FEATURES "avx512f,avx512bw,avx512dq,avx512vl,bmi2"
#define TVIXB_TARGET_AVX512 __attribute__((target(TVIXB_AVX512_FEATURES)))
#endif

#if defined(__aarch64__) && !defined(__AARCH64EB__)
#define TVIXB_HAVE_NEON 1
#endif

// Code in headers can be compiled for a level: a file defines TVIXB_FOR_AVX2 or
// TVIXB_FOR_AVX512 before it includes them. TVIXB_TARGET is the attribute of
// that code.
#if defined(TVIXB_FOR_AVX512)
#define TVIXB_TARGET TVIXB_TARGET_AVX512
#elif defined(TVIXB_FOR_AVX2)
#define TVIXB_TARGET TVIXB_TARGET_AVX2
#else
#define TVIXB_TARGET
#endif

// Returns the highest level that this CPU supports, which is found out once,
// when the library is loaded. In test builds (TVIXB_TEST_BUILD), the
// environment variable TVIXB_CPU_LEVEL lowers it, as tvixb_cpu_lower does.
tvixb_cpu_level tvixb_cpu_best(void);

// Lowers the level for the kinds that are found from now on, and for hashing
// and sorting: to "plain", "avx2", "avx512" or "neon"; NULL or "best" restores
// it. Does nothing if the CPU lacks the level. Aborts if the name is unknown.
// Only in test builds.
void tvixb_cpu_lower(const char* name);

#endif  // TVIXB_CPU_H
