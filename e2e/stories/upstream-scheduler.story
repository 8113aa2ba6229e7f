# kube-scheduler in the place of ours: it reads our pods and nodes in protobuf, and binds.
$ kubectl apply -f manifests/web.yaml
deployment.apps/web created
service/web created
$ kubectl rollout status deployment/web --timeout=120s | tail -1
deployment "web" successfully rolled out
$ kubectl get pods -l app=web -o jsonpath='{range .items[*]}{.spec.schedulerName} {.spec.nodeName} {.status.phase}{"\n"}{end}' | sort -u
default-scheduler n2 Running
~ kubectl get events --field-selector reason=Scheduled -o jsonpath='{.items[*].reportingComponent}' | tr ' ' '\n' | sort | uniq -c | tr -s ' '
 3 default-scheduler
$ kubectl run nowhere --image=trimtab.local/trimtab --overrides='{"spec":{"nodeSelector":{"no":"where"}}}'
pod/nowhere created
~ kubectl get pod nowhere -o jsonpath='{.status.conditions[?(@.type=="PodScheduled")].reason}'
Unschedulable
$ kubectl delete pod nowhere
pod "nowhere" deleted from default namespace
$ kubectl get lease -n kube-system kube-scheduler -o jsonpath='{.spec.leaseDurationSeconds}'
15
