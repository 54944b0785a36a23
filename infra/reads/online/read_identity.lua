-- Returns the identity of this server and a marker, atomically: the marker was read from exactly this server.
return {
  (string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '?')
    .. ':' .. (string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '?'),
  redis.call('GET', KEYS[1]),
}
