-- Answers who this server is, and a marker of it: in one step, so that the two belong together.
return {
  (string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '?')
    .. ':' .. (string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '?'),
  redis.call('GET', KEYS[1]),
}
