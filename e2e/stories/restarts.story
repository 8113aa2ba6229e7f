# A container that is killed comes back, counted, and after a pause the second time.
$ kubectl apply -f manifests/box.yaml
pod/box created
$ kubectl wait --for=condition=Ready pod/box --timeout=60s
pod/box condition met
$ pkill -KILL -P $(pgrep -f "[s]him /run/trimtab/.*/pods/$(kubectl get pod box -o jsonpath='{.metadata.uid}')")
~ kubectl get pod box -o jsonpath='{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].lastState.terminated.exitCode}'
1 true 137
$ kubectl logs box --previous
started
$ pkill -KILL -P $(pgrep -f "[s]him /run/trimtab/.*/pods/$(kubectl get pod box -o jsonpath='{.metadata.uid}')")
~ kubectl get pod box -o jsonpath='{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.waiting.reason}'
1 CrashLoopBackOff
$ kubectl get pod box -o jsonpath='{.status.containerStatuses[0].state.waiting.message}'
back-off 10s restarting failed container=box pod=box_default([..])
~ kubectl get pod box -o jsonpath='{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}'
2 true
~ kubectl get events --field-selector=involvedObject.name=box,reason=BackOff -o name | wc -l
1
$ kubectl delete pod box
pod "box" deleted from default namespace
