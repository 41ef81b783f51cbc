"""The files through which a supervisor and a job's child speak, all in the staging folder."""

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.jsonl"
LOCK_FILE = "lock"
FORKED_FILE = "forked.json"
