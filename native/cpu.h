// SPDX-License-Identifier: MIT
//
// Detects the features of the CPU.
#ifndef TVIXB_CPU_H
#define TVIXB_CPU_H

typedef enum tvixb_cpu_level {
  TVIXB_CPU_PLAIN = 0,   // any CPU
  TVIXB_CPU_AVX2 = 1,    // x86-64 with AVX2
  TVIXB_CPU_AVX512 = 2,  // also with AVX-512 F, BW, DQ and VL, and BMI2
} tvixb_cpu_level;

// TVIXB_HAVE_... is defined if code for a level can be compiled.
// TVIXB_TARGET_... is the attribute of its functions.
#if defined(__x86_64__)
#define TVIXB_HAVE_AVX2 1
#define TVIXB_HAVE_AVX512 1
#define TVIXB_TARGET_AVX2 __attribute__((target("avx2")))
#define TVIXB_AVX512_FEATURES "avx512f,avx512bw,avx512dq,avx512vl,bmi2"
#define TVIXB_TARGET_AVX512 __attribute__((target(TVIXB_AVX512_FEATURES)))
#endif

// Compiles the rest of a file for AVX-512, if the compiler supports that.
#if defined(TVIXB_HAVE_AVX512) && defined(__GNUC__) && !defined(__clang__)
#define TVIXB_PRAGMA(directive) _Pragma(#directive)
#define TVIXB_PRAGMA_TARGET(features) TVIXB_PRAGMA(GCC target(features))
#define TVIXB_REST_AVX512 TVIXB_PRAGMA_TARGET(TVIXB_AVX512_FEATURES)
#else
#define TVIXB_REST_AVX512
#endif

// Returns the highest level that this CPU supports. In test builds
// (TVIXB_TEST_BUILD), the environment variable TVIXB_CPU_LEVEL lowers it to
// "plain" or "avx2".
tvixb_cpu_level tvixb_cpu_best(void);

#endif  // TVIXB_CPU_H
