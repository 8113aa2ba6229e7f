# Bad input of each kind: Kubernetes' own answer, and nothing written.
$ echo 'a: [' | kubectl apply -f - 2>&1 | head -1
error: error parsing STDIN: error converting YAML to JSON: [..]
$ echo '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Bad_Name"}}' | kubectl apply -f - 2>&1 | cut -c1-75
The ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Nam
$ echo '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dta":{}}' | kubectl apply -f - 2>&1 | cut -c1-150
Error from server (BadRequest): error when creating "STDIN": ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknow
$ kubectl get configmap x
Error from server (NotFound): configmaps "x" not found
exit 1
$ kubectl get widgets
error: the server doesn't have a resource type "widgets"
exit 1
$ kubectl get pods --as=nobody
Error from server (Forbidden): pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "default"
exit 1
$ kubectl get --raw '/api/v1/namespaces/default/pods?watch=true&resourceVersion=1' 2>&1 | head -c 80
[..]
