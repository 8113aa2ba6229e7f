# A watch from a revision that is gone: it is told so, and a list starts anew.
$ REV=$(curl -s http://127.0.0.1:2379/v3/kv/range -d '{"key":"AA=="}' | grep -o '"revision":"[0-9]*"' | grep -o '[0-9]*'); curl -s http://127.0.0.1:2379/v3/kv/compaction -d "{\"revision\":\"$REV\",\"physical\":true}" | grep -o raft_term
raft_term
$ kubectl get --raw '/api/v1/namespaces/default/pods?watch=true&resourceVersion=2&timeoutSeconds=5'
{"type":"ERROR"[..]"reason":"Expired","code":410[..]
