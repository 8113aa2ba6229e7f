# A node is emptied, comes back, and is tainted.
$ kubectl drain n2 --ignore-daemonsets --timeout=60s
node/n2 cordoned
evicting pod default/web-[..]
pod/web-[..] evicted
node/n2 drained
$ kubectl get node n2 --no-headers | awk '{print $2}'
Ready,SchedulingDisabled
$ kubectl get pods -l app=web --field-selector=spec.nodeName=n2
No resources found in default namespace.
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl cordon n2
node/n2 already cordoned
$ kubectl uncordon n2
node/n2 uncordoned
$ kubectl taint node n2 k=v:NoSchedule
node/n2 tainted
$ kubectl taint node n2 k=v:NoSchedule
error: node n2 already has k taint(s) with same effect(s) and --overwrite is false
exit 1
~ kubectl describe node n2 | grep Taints
Taints:             k=v:NoSchedule
$ kubectl taint node n2 k:NoSchedule-
node/n2 untainted
