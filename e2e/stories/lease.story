# Somebody else takes the scheduler's lease and gives it back: the scheduler ends, and starts again.
$ kubectl -n kube-system patch lease kube-scheduler --type=merge -p '{"spec":{"holderIdentity":"thief"}}'
lease.coordination.k8s.io/kube-scheduler patched
~ grep -c 'the scheduler ended; starting again' $WORK/n1.log
1
$ kubectl apply -f manifests/box.yaml
pod/box created
$ kubectl -n kube-system delete lease kube-scheduler
lease.coordination.k8s.io "kube-scheduler" deleted from kube-system namespace
$ kubectl wait --for=condition=Ready pod/box --timeout=60s
pod/box condition met
$ kubectl delete pod box --now
pod "box" deleted from default namespace
