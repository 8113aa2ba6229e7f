# Every form in which kubectl shows objects.
$ kubectl get deployment web
NAME   READY   UP-TO-DATE   AVAILABLE   AGE
web    3/3     3            3           [..]
$ kubectl get deployment,service web -o name
deployment.apps/web
service/web
$ kubectl get deployment web -o wide
NAME   READY   UP-TO-DATE   AVAILABLE   AGE   CONTAINERS   IMAGES                         SELECTOR
web    3/3     3            3           [..]   web          trimtab.local/trimtab:latest   app=web
$ kubectl get deployment web -o json | head -3
{
    "apiVersion": "apps/v1",
    "kind": "Deployment",
$ kubectl get deployment web -o yaml | grep -A9 strategy:
  strategy:
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
    type: RollingUpdate
  template:
    metadata:
      labels:
        app: web
    spec:
$ kubectl get service web -o jsonpath='{.spec.ports[*].port} {.spec.selector.app}{"\n"}'
80 web
$ kubectl get deployment web -o custom-columns=NAME:.metadata.name,IMAGE:.spec.template.spec.containers[*].image,R:.spec.replicas
NAME   IMAGE                          R
web    trimtab.local/trimtab:latest   3
$ kubectl get deployment web -o go-template='{{range .spec.template.spec.containers}}{{.name}} {{.image}}{{"\n"}}{{end}}'
web trimtab.local/trimtab:latest
$ kubectl get pods -l app=web --show-labels | head -2
NAME                   READY   STATUS    RESTARTS   AGE   LABELS
web-[..]   1/1     Running   0          [..]   app=web,pod-template-hash=[..]
$ kubectl get pods -l app=web -L app --no-headers | awk '{print $NF}'
web
web
web
$ kubectl get pods -l app=web -o wide --sort-by=.spec.nodeName --no-headers | awk '{print $6, $7}'
10.244.[..] n1
10.244.[..] n2
10.244.[..] n3
$ kubectl get nodes --sort-by='{.metadata.creationTimestamp}' -o name
node/n1
...
$ kubectl get pods -l app=web --field-selector=spec.nodeName=n2 -o name | wc -l
1
$ timeout 2 kubectl get deployment web --watch --output-watch-events
EVENT[..]NAME   READY   UP-TO-DATE   AVAILABLE   AGE
ADDED[..]web    3/3     3            3           [..]
exit 124
$ kubectl get endpointslices -l kubernetes.io/service-name=web
NAME        ADDRESSTYPE   PORTS   ENDPOINTS                          AGE
web-[..]   IPv4          8080    10.244.[..],10.244.[..],10.244.[..]   [..]
$ kubectl get all -l app=web -o name | cut -d- -f1
pod/web
pod/web
pod/web
replicaset.apps/web
