"""Where jobs run: threads of this machine, or an existing dask cluster; the outcomes come back as the same files.

Our choice; the paper has no counterpart. A dask worker needs this package and nothing else: notebook and results travel
with the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from pudnet_lib.batch.runner import Job, Outcome, run_job, stop_all
from pudnet_lib.parallel import dask_client

Progress = Callable[[str, str], None]


def run_local(jobs: Sequence[Job], parallel: int, progress: Progress) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs on this machine.

    Args:
        jobs: The jobs.
        parallel: How many at a time.
        progress: Called with a job's name and a word.

    Yields:
        Each job with its outcome, as they end.
    """
    pool = ThreadPoolExecutor(parallel)
    try:
        futures = {pool.submit(run_job, job, lambda word, name=job.name: progress(name, word)): job for job in jobs}  # type: ignore[misc]
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:  # also after Ctrl-C
        pool.shutdown(wait=False, cancel_futures=True)
        stop_all()


def run_dask(
    jobs: Sequence[Job], scheduler: str, progress: Progress, resources: dict[str, float] | None = None
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs on a dask cluster.

    Args:
        jobs: The jobs.
        scheduler: The scheduler's address, such as "tcp://head:8786".
        progress: Called with a job's name and a word.
        resources: What a job takes of a worker's resources, such as {"GPU": 1}.

    Yields:
        Each job with its outcome, as they end; a lost worker is a failed outcome.

    Raises:
        PudNetError: If dask is not installed, or the scheduler does not answer.
    """
    client = dask_client(scheduler)
    from distributed import as_completed as dask_as_completed

    with client:
        futures = {}
        for job in jobs:
            # Impure: a second batch runs again what the first one failed at.
            futures[
                client.submit(run_job, job, key=f"{job.name}-{job.digest[:12]}", pure=False, resources=resources)
            ] = job
            progress(job.name, "sent")
        for future in dask_as_completed(futures):
            if future.status == "finished":
                yield futures[future], future.result()
            else:
                yield futures[future], Outcome("failed", f"the worker broke off: {future.exception()}")
