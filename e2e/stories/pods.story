# Pods: logs, exec, a terminal, files, ports, names, one-off pods.
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
$ echo 'tty; exit 7' | script -qec 'kubectl exec -it box -- sh' /dev/null | tr -d '\r' | grep -e ^/dev -e ^command
/dev/pts/0
command terminated with exit code 7
$ mkdir -p $WORK/d/e && echo deep > $WORK/d/e/f && kubectl cp $WORK/d box:/tmp/d && kubectl exec box -- cat /tmp/d/e/f
deep
$ kubectl exec box -- sh -c 'echo back > /tmp/d/e/g' && kubectl cp box:/tmp/d $WORK/back >/dev/null 2>&1 && cat $WORK/back/e/f $WORK/back/e/g
deep
back
~ kubectl exec box -- wget -qO- http://web/hostname | cut -d- -f1
web
$ kubectl exec box -- nslookup web.default.svc.cluster.local | grep -A1 ^Name
Name:	web.default.svc.cluster.local
Address: 10.96.[..]
$ kubectl port-forward service/web 18080:80 > $WORK/forward & for i in $(seq 100); do grep -q Forwarding $WORK/forward && break; sleep 0.1; done; curl -s http://127.0.0.1:18080/hostname | cut -d- -f1; kill $!; grep -v ::1 $WORK/forward
web
Forwarding from 127.0.0.1:18080 -> 8080
Handling connection for 18080
$ kubectl run once --image=trimtab.local/busybox:latest --image-pull-policy=Never --restart=Never -- sh -c 'for i in 1 2 3; do echo line $i; sleep 0.5; done'
pod/once created
$ kubectl wait --for=jsonpath='{.status.phase}'=Running pod/once --timeout=20s >/dev/null; kubectl logs -f once
line 1
line 2
line 3
~ kubectl get pod once
NAME   READY   STATUS      RESTARTS   AGE
once   0/1     Completed   0          [..]
$ kubectl logs once --tail=1
line 3
$ echo word | kubectl run typed --image=trimtab.local/busybox:latest --image-pull-policy=Never --rm -i --restart=Never -- sh -c 'read x; echo got $x' 2>&1 | grep -e got -e deleted
got word
pod "typed" deleted from default namespace
$ kubectl run alone --image=trimtab.local/trimtab:latest --image-pull-policy=Never --port=8080 --expose -- web --listen :8080
pod/alone created
service/alone created
$ kubectl expose deployment web --name=door --port=81 --target-port=8080 --type=NodePort
service/door exposed
$ curl -s --retry 50 --retry-delay 0 --retry-all-errors http://$NODE_IP:$(kubectl get service door -o jsonpath='{.spec.ports[0].nodePort}')/hostname | cut -d- -f1
web
$ kubectl wait --for=condition=Ready pod/alone --timeout=20s
pod/alone condition met
$ timeout 2 kubectl attach alone 2>&1 | tail -1
If you don't see a command prompt, try pressing enter.
$ kubectl delete service/alone service/door pod/alone pod/once pod/box | cut -d' ' -f1,2
service "alone"
service "door"
pod "alone"
pod "once"
pod "box"
