# SPDX-License-Identifier: MIT
"""A message of this workspace that holds messages of snix."""

from __future__ import annotations

from app.snix_job_pb2 import SnixJob

import tvix_build


def test_messages_of_a_job_are_checked() -> None:
    job = SnixJob()
    job.request.command_args.append("/bin/true")
    job.request.outputs.append("out")
    job.response.outputs.add().output.file.digest = bytes(32)
    job.sources.files.add(name=b"source", digest=bytes(32))
    job = SnixJob.FromString(job.SerializeToString())
    assert tvix_build.check(job.request).canonical
    assert tvix_build.check(job.response, request=job.request).canonical
    assert tvix_build.check(job.sources).canonical
    job.request.outputs.append("/a")
    assert not tvix_build.check(job.request).valid
    assert not tvix_build.check(job.response, request=job.request).valid
