# Nothing is on its way any more, and a pod looks names up.
~ kubectl get pods -l app=web --no-headers | wc -l
3
$ kubectl apply -f manifests/resolver.yaml
pod/resolver created
~ kubectl logs resolver --tail=1
resolved
