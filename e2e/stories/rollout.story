# A workload moves from one template to the next, and back.
$ kubectl annotate deployment web kubernetes.io/change-cause=first
deployment.apps/web annotated
$ kubectl set image deployment/web web=trimtab.local/trimtab
deployment.apps/web image updated
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl annotate deployment web kubernetes.io/change-cause=second --overwrite
deployment.apps/web annotated
~ kubectl rollout history deployment/web
deployment.apps/web
REVISION  CHANGE-CAUSE
1         first
2         second
$ kubectl rollout history deployment/web --revision=2 | grep -e revision -e Image
deployment.apps/web with revision #2
    Image:	trimtab.local/trimtab
$ kubectl rollout undo deployment/web --to-revision=1 2>&1 | grep -v Warning
deployment.apps/web rolled back
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[0].image}'
trimtab.local/trimtab:latest
$ kubectl rollout undo deployment/web --to-revision=77 2>&1 | grep -v Warning
error: unable to find specified revision 77 in history
$ kubectl rollout pause deployment/web
deployment.apps/web paused
$ kubectl set env deployment/web ROUND=one
deployment.apps/web env updated
$ kubectl rollout undo deployment/web 2>&1 | grep -v Warning
error: you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again
$ kubectl get replicasets -l app=web --no-headers | wc -l
2
$ kubectl rollout resume deployment/web
deployment.apps/web resumed
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl rollout restart deployment/web
deployment.apps/web restarted
$ kubectl rollout status deployment/web --timeout=60s | tail -1
deployment "web" successfully rolled out
$ kubectl wait --for=condition=Available deployment/web --timeout=30s
deployment.apps/web condition met
$ kubectl wait --for=jsonpath='{.status.updatedReplicas}'=3 deployment/web --timeout=30s
deployment.apps/web condition met
$ kubectl wait --for=condition=Available deployment/nothing --timeout=5s
Error from server (NotFound): deployments.apps "nothing" not found
exit 1
