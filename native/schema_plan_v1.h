// SPDX-License-Identifier: MIT
//
// tvix_build.plan.v1: steps, which contain requests of the other schemas. The
// comments in proto/ describe the rules.
#ifndef TVIXB_SCHEMA_PLAN_V1_H
#define TVIXB_SCHEMA_PLAN_V1_H

#include "schema_rows.h"
#include "schema_snix_build_v1.h"
#include "schema_tvix_build_v1.h"

// With requests of tvix.build.v1.
#define TVIX_INPUT_REF(F)           \
  F(1, SINGLE, BYTES, step, digest) \
  F(2, KEY, STRING, output, name, .base_name = true)
TVIXB_MESSAGE(tvix_input_ref, TVIX_INPUT_REF)

#define TVIX_STEP(F)                                                         \
  F(1, SINGLE, MESSAGE(tvix_build_request), request, none, .required = true, \
    .encoded = true)                                                         \
  F(2, SORTED, MESSAGE(tvix_input_ref), input_refs, none)                    \
  F(3, SINGLE, STRING, schema, schema, .required = true)
TVIXB_MESSAGE(tvix_step, TVIX_STEP)

static const tvixb_relation tvix_step_relations[] = {
    {.left = TVIXB_LIST(tvix_step, request.outputs),
     .right = TVIXB_LIST(tvix_step, request.inputs),
     .also = TVIXB_LIST(tvix_step, input_refs),
     .forbidden = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT},
    {.left = TVIXB_LIST(tvix_step, input_refs),
     .right = TVIXB_LIST(tvix_step, request.inputs),
     .forbidden = true,
     .code = TVIXB_CODE_DUPLICATE},
};

// With requests of the later schemas.
#define LATER_INPUT_REF(F)          \
  F(1, SINGLE, BYTES, step, digest) \
  F(2, KEY, STRING, output, output_path, .base_name = true)
TVIXB_MESSAGE(later_input_ref, LATER_INPUT_REF)

#define LATER_STEP(F)                                                        \
  F(1, SINGLE, MESSAGE(snix_build_request), request, none, .required = true, \
    .encoded = true)                                                         \
  F(2, SORTED, MESSAGE(later_input_ref), input_refs, none)                   \
  F(3, SINGLE, STRING, schema, schema, .required = true)
TVIXB_MESSAGE(later_step, LATER_STEP)

static const tvixb_relation later_step_relations[] = {
    {.left = TVIXB_LIST(later_step, request.outputs),
     .right = TVIXB_LIST(later_step, request.inputs),
     .also = TVIXB_LIST(later_step, input_refs),
     .forbidden = true,
     .code = TVIXB_CODE_OUTPUT_IS_INPUT,
     .match = TVIXB_MATCH_BELOW_PREFIX},
    {.left = TVIXB_LIST(later_step, input_refs),
     .right = TVIXB_LIST(later_step, request.inputs),
     .forbidden = true,
     .code = TVIXB_CODE_DUPLICATE},
};

#define STEP_KIND(root)                                     \
  TVIXB_KIND("tvix_build.plan.v1.Step", root,               \
             TVIXB_RELATIONS(root##_relations),             \
             .part = {.refs = TVIXB_LIST(root, input_refs), \
                      .ref_field = 2,                       \
                      .ref_digest = 1,                      \
                      .ref_target = 2,                      \
                      .targets = TVIXB_LIST(root, request.outputs)})

static const struct tvixb_kind tvix_step_kind = STEP_KIND(tvix_step);
static const struct tvixb_kind later_step_kind = STEP_KIND(later_step);

static const tvixb_variant step_variants[] = {
    {TVIXB_SCHEMA_TVIX_BUILD_V1, &tvix_step_kind},
    {TVIXB_SCHEMA_TVIX_BUILD_V1_2024, &later_step_kind},
    {TVIXB_SCHEMA_SNIX_BUILD_V1, &later_step_kind},
    {0},
};

// With requests of an unknown schema, which are not checked.
#define INPUT_REF(F)                \
  F(1, SINGLE, BYTES, step, digest) \
  F(2, KEY, STRING, output, none, .base_name = true)
TVIXB_MESSAGE(input_ref, INPUT_REF)

#define STEP(F)                                        \
  F(1, SINGLE, BYTES, request, none, .required = true) \
  F(2, SORTED, MESSAGE(input_ref), input_refs, none)   \
  F(3, SINGLE, STRING, schema, schema, .required = true)
TVIXB_MESSAGE(step, STEP, .selector = 3, .variants = step_variants)

#define PLAN(F)                           \
  F(1, REPEATED, PART(step), steps, none) \
  F(2, SORTED, BYTES, roots, digest, .required = true)
TVIXB_MESSAGE(plan, PLAN)

static const struct tvixb_kind any_step_kind =
    TVIXB_KIND("tvix_build.plan.v1.Step", step);

static const tvixb_graph_rule plan_rule = {
    .part = &any_step_kind,
    .parts = 1,
    .roots = TVIXB_LIST(plan, roots),
    .variant_code = TVIXB_CODE_INVALID_NAME,
    .unknown_code = TVIXB_CODE_UNKNOWN_STEP,
    .unknown_target_code = TVIXB_CODE_UNEXPECTED_OUTPUT,
    .unreached_code = TVIXB_CODE_UNREACHABLE_STEP,
};

static const struct tvixb_kind plan_v1[] = {
    TVIXB_KIND("tvix_build.plan.v1.Step", step),
    TVIXB_KIND("tvix_build.plan.v1.Plan", plan, .graph = &plan_rule),
    {0},
};

#endif  // TVIXB_SCHEMA_PLAN_V1_H
