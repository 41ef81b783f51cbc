"""The files through which a supervisor and a job's child speak, all in the staging folder."""

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.jsonl"
LOCK_FILE = "lock"
FORKED_FILE = "forked.json"

NEEDS_NO_DEVICE = ("publish", "pull", "convert", "export")
"""Kinds of jobs that read, write and send files: they run beside one that has the device."""
