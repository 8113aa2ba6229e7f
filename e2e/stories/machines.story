# Machines with nothing but cgroup v2: limits, out of memory, services and names across nodes.
$ kubectl apply -f manifests/web.yaml
deployment.apps/web created
service/web created
~ kubectl get deployment web -o jsonpath='{.status.availableReplicas}'
3
$ kubectl get pods -l app=web -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u | wc -l
3
$ kubectl apply -f manifests/box.yaml
pod/box created
~ kubectl get pod box -o jsonpath='{.status.phase}'
Running
~ kubectl exec box -- wget -qO- http://web/hostname | cut -d- -f1
web
$ kubectl exec box -- cat /proc/1/cgroup
[..]0::/[..]
$ kubectl delete pod box --now
pod "box" deleted from default namespace
