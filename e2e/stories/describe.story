# describe tells of a deployment, a pod, a service and a node.
$ kubectl describe deployment web
Name:                   web
Namespace:              default
CreationTimestamp:      [..]
Labels:                 <none>
Annotations:            deployment.kubernetes.io/revision: 1
Selector:               app=web
Replicas:               3 desired | 3 updated | 3 total | 3 available | 0 unavailable
StrategyType:           RollingUpdate
MinReadySeconds:        0
RollingUpdateStrategy:  0 max unavailable, 1 max surge
Pod Template:
  Labels:  app=web
  Containers:
   web:
    Image:      trimtab.local/trimtab:latest
    Port:       8080/TCP (http)
    Host Port:  0/TCP (http)
    Args:
      web
      --listen
      :8080
    Readiness:     http-get http://:http/healthz delay=0s timeout=1s period=1s successThreshold=1 failureThreshold=3
    Environment:   <none>
    Mounts:        <none>
  Volumes:         <none>
  Node-Selectors:  <none>
  Tolerations:     <none>
Conditions:
  Type           Status  Reason
  ----           ------  ------
...
OldReplicaSets:  <none>
NewReplicaSet:   web-[..] (3/3 replicas created)
Events:
  Type    Reason             Age   From                   Message
  ----    ------             ----  ----                   -------
  Normal  ScalingReplicaSet  [..]deployment-controller[..]Scaled up replica set web-[..] from 0 to 3
...
$ kubectl describe $(kubectl get pods -l app=web -o name | head -1) | grep -v Unhealthy
Name:             web-[..]
Namespace:        default
Priority:         0
Service Account:  default
Node:             n[..]/10.89.[..]
...
Status:           Running
IP:               10.244.[..]
IPs:
  IP:           10.244.[..]
Controlled By:  ReplicaSet/web-[..]
Containers:
  web:
    Container ID:  trimtab://[..]
    Image:         trimtab.local/trimtab:latest
    Image ID:      trimtab.local/trimtab@sha256:[..]
...
    State:          Running
      Started:      [..]
    Ready:          True
    Restart Count:  0
...
QoS Class:                    BestEffort
...
Events:
  Type[..]
  ----[..]
  Normal[..]Scheduled[..]default-scheduler[..]Successfully assigned default/web-[..] to n[..]
  Normal[..]Pulled[..]kubelet[..]Container image "trimtab.local/trimtab:latest" already present on machine[..]
  Normal[..]Created[..]kubelet[..]Container created
  Normal[..]Started[..]kubelet[..]Container started
...
$ kubectl describe service web
Name:                     web
Namespace:                default
Labels:                   <none>
Annotations:              <none>
Selector:                 app=web
Type:                     ClusterIP
IP Family Policy:         SingleStack
IP Families:              IPv4
IP:                       10.96.[..]
IPs:                      10.96.[..]
Port:                     http  80/TCP
TargetPort:               http/TCP
Endpoints:                10.244.[..]:8080,10.244.[..]:8080,10.244.[..]:8080
Session Affinity:         None
Internal Traffic Policy:  Cluster
Events:                   <none>
$ kubectl describe node n1
Name:               n1
Roles:              <none>
Labels:             [..]
...
Taints:             <none>
Unschedulable:      false
Lease:
  HolderIdentity:  n1
...
  Ready            True    [..]KubeletReady                 kubelet is posting ready status
Addresses:
  InternalIP:  10.89.[..]
  Hostname:    n1
Capacity:
...
System Info:
...
  Container Runtime Version:  trimtab://[..]
  Kubelet Version:            v1.37.2+trimtab-[..]
PodCIDR:                      10.244.[..]/24
PodCIDRs:                     10.244.[..]/24
Non-terminated Pods:          ([..] in total)
...
Allocated resources:
...
