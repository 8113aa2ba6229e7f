# Pods: logs, exec, copy, port-forward, init containers, restarts, volumes, deletion.
$ kubectl apply -f manifests/box.yaml
pod/box created
$ kubectl wait --for=condition=Ready pod/box --timeout=60s
pod/box condition met
$ kubectl logs box
started
$ kubectl exec box -- sh -c 'echo $GREETING from $(hostname)'
hello from box
$ kubectl exec box -- sh -c 'exit 3'
command terminated with exit code 3
exit 3
$ echo typed | kubectl exec -i box -- cat
typed
$ kubectl exec box -- wget -qO- http://web/hostname | cut -d- -f1
web
$ kubectl exec box -- nslookup web.default.svc.cluster.local | grep -c Address
[..]
$ kubectl delete pod box
pod "box" deleted from default namespace
