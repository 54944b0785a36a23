"""Work in parallel: tasks by bucket, executors that run them on processes, Ray or Spark, and jobs that record them."""
