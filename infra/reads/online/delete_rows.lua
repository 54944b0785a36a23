-- Deletes keys and returns how many there were, unless their marker exists: a run writes them again, and its rows stay
-- (SEMANTICS 4.5). The last argument is the name of the marker, a space, and any word.
-- An error means that the slot migrates: then the marker is another node's.
if redis.pcall('EXISTS', string.match(ARGV[#KEYS + 1], '^(.*) %S+$')) == 1 then
  return 0
end
return redis.call('UNLINK', unpack(KEYS))
