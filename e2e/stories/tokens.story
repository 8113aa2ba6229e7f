# Tokens with which agents join.
$ trimtab token create --ttl 30m --data-dir $DATA > $WORK/join && grep -c '^K10.*::[a-z0-9]\{6\}\.[a-z0-9]\{16\}$' $WORK/join
1
$ trimtab token list --data-dir $DATA | grep -c $(sed 's/.*::\(.*\)\..*/\1/' $WORK/join)
1
$ trimtab token delete $(sed 's/.*::\(.*\)\..*/\1/' $WORK/join) --data-dir $DATA
token [..] deleted
$ trimtab token list --data-dir $DATA | grep -c $(sed 's/.*::\(.*\)\..*/\1/' $WORK/join)
0
exit 1
$ trimtab token delete zzzzzz --data-dir $DATA
error: there is no token zzzzzz; `trimtab token list` shows those that are there
exit 1
$ trimtab token list --data-dir /nowhere 2>&1 | cut -d';' -f1
error: no server keeps its data in /nowhere
