# SPDX-License-Identifier: MIT
"""A message of this workspace that holds a build request."""

from __future__ import annotations

from app.job_pb2 import Job

import tvix_build


def test_request_of_a_job_is_checked() -> None:
    request = tvix_build.build_request(
        command_args=["/bin/true"], outputs=["out"], system="x86_64-linux"
    )
    job = Job.FromString(Job(name="true", request=request).SerializeToString())
    assert tvix_build.check(job.request).canonical
    job.request.outputs.append("a/b")
    assert not tvix_build.check(job.request).valid
