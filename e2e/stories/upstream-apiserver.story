# kube-apiserver opens the etcd that we have filled.
~ kubectl --kubeconfig $PEER/kubeconfig get --raw /readyz
ok
$ kubectl --kubeconfig $PEER/kubeconfig get deployment web -o jsonpath='{.status.readyReplicas}'
3
# Each writes one of every kind.
$ sed 's/WHO/ours/g; s/NET/7/g' manifests/every-kind.yaml > $WORK/ours.yaml; sed 's/WHO/theirs/g; s/NET/8/g' manifests/every-kind.yaml > $WORK/theirs.yaml
$ kubectl create --as=proof --as-group=system:masters --field-manager=proof -f $WORK/ours.yaml 2>/dev/null | grep -c ' created$'
55
$ kubectl --kubeconfig $PEER/kubeconfig create --as=proof --as-group=system:masters --field-manager=proof -f $WORK/theirs.yaml 2>/dev/null | grep -c ' created$'
55
# Custom resources too.
~ for who in ours theirs; do kubectl get crd things.$who.example.com -o jsonpath='{.status.conditions[?(@.type=="Established")].status}'; done
TrueTrue
~ for who in ours theirs; do for file in $KUBECONFIG $PEER/kubeconfig; do printf '{"apiVersion":"%s.example.com/v1","kind":"Thing","metadata":{"name":"thing"},"spec":{}}' $who | kubectl --kubeconfig $file apply --server-side --field-manager=proof -n $who -f - 2>&1; done; done
thing.ours.example.com/thing serverside-applied
thing.ours.example.com/thing serverside-applied
thing.theirs.example.com/thing serverside-applied
thing.theirs.example.com/thing serverside-applied
