# Somebody else takes the scheduler's lease and gives it back: the scheduler ends, and starts again.
$ kubectl -n kube-system patch lease kube-scheduler --type=merge -p '{"spec":{"holderIdentity":"thief"}}'
lease.coordination.k8s.io/kube-scheduler patched
~ grep -c 'the scheduler ended; starting again' $WORK/n1.log
1
$ kubectl create deployment leased --image=trimtab.local/busybox:latest -- sleep 1000
deployment.apps/leased created
$ kubectl -n kube-system delete lease kube-scheduler
lease.coordination.k8s.io "kube-scheduler" deleted from kube-system namespace
$ kubectl wait --for=condition=Available deployment/leased --timeout=60s
deployment.apps/leased condition met
$ kubectl delete deployment leased --cascade=foreground
deployment.apps "leased" deleted from default namespace
