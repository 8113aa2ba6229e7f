# What kubectl checks against the server's own schema before it sends it: reviews, lists, bindings, unknown fields.
$ echo '{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}' | kubectl create -f - -o jsonpath='{.status.allowed}'
true
$ echo '{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"l1"}},{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"l2"}}]}' | kubectl create -f -
configmap/l1 created
configmap/l2 created
$ kubectl delete configmap l1 l2 | wc -l
2
$ sed 's/^spec:/spec:\n  schedulerName: nobody/' manifests/box.yaml | kubectl create -f -
pod/box created
$ echo '{"apiVersion":"v1","kind":"Binding","metadata":{"name":"box"},"target":{"apiVersion":"v1","kind":"Node","name":"n3"}}' | kubectl create -f -
status/<unknown> created
$ kubectl wait --for=condition=Ready pod/box --timeout=60s
pod/box condition met
$ kubectl get pod box -o jsonpath='{.spec.nodeName}'
n3
$ kubectl delete pod box --now
pod "box" deleted from default namespace
