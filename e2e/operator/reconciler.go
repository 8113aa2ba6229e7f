package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

const (
	finalizer = "operator.trimtab.test/farewell"
	label     = "operator.trimtab.test/widget"
)

// Reconciler keeps spec.replicas ConfigMaps for each Widget, and says farewell to one that is deleted.
type Reconciler struct {
	client.Client
	// Identity names this process in what it writes.
	Identity string
}

// Reconcile makes the ConfigMaps of one Widget what its spec says.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var widget Widget
	if err := r.Get(ctx, req.NamespacedName, &widget); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !widget.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.farewell(ctx, &widget)
	}
	if controllerutil.AddFinalizer(&widget, finalizer) {
		return ctrl.Result{}, r.Update(ctx, &widget)
	}
	if err := r.keep(ctx, &widget); err != nil {
		return ctrl.Result{}, err
	}
	if err := r.trim(ctx, &widget); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.report(ctx, &widget)
}

func replicas(widget *Widget) int32 {
	if widget.Spec.Replicas == nil {
		return 1
	}
	return *widget.Spec.Replicas
}

func nameOf(widget *Widget, at int32) string {
	return fmt.Sprintf("%s-%d", widget.Name, at)
}

func (r *Reconciler) keep(ctx context.Context, widget *Widget) error {
	for at := range replicas(widget) {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: widget.Namespace, Name: nameOf(widget, at)}}
		_, err := controllerutil.CreateOrUpdate(ctx, r.Client, object, func() error {
			object.Labels = map[string]string{label: widget.Name}
			object.Data = map[string]string{"message": widget.Spec.Message, "by": r.Identity}
			return controllerutil.SetControllerReference(widget, object, r.Scheme())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) owned(ctx context.Context, widget *Widget) (*corev1.ConfigMapList, error) {
	var list corev1.ConfigMapList
	err := r.List(ctx, &list, client.InNamespace(widget.Namespace), client.MatchingLabels{label: widget.Name})
	return &list, err
}

func (r *Reconciler) trim(ctx context.Context, widget *Widget) error {
	list, err := r.owned(ctx, widget)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for at := range replicas(widget) {
		wanted[nameOf(widget, at)] = true
	}
	for i := range list.Items {
		if !wanted[list.Items[i].Name] {
			if err := r.Delete(ctx, &list.Items[i]); client.IgnoreNotFound(err) != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Reconciler) report(ctx context.Context, widget *Widget) error {
	list, err := r.owned(ctx, widget)
	if err != nil {
		return err
	}
	seen := WidgetStatus{Ready: int32(len(list.Items)), ObservedGeneration: widget.Generation}
	if widget.Status == seen {
		return nil
	}
	before := widget.DeepCopyObject().(*Widget)
	widget.Status = seen
	return r.Status().Patch(ctx, widget, client.MergeFrom(before))
}

// farewell leaves a ConfigMap without an owner behind, then lets the Widget go.
func (r *Reconciler) farewell(ctx context.Context, widget *Widget) error {
	if !controllerutil.ContainsFinalizer(widget, finalizer) {
		return nil
	}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: widget.Namespace, Name: widget.Name + "-farewell"}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, object, func() error {
		object.Data = map[string]string{"message": "farewell, " + widget.Spec.Message}
		return nil
	})
	if err != nil {
		return err
	}
	controllerutil.RemoveFinalizer(widget, finalizer)
	return client.IgnoreNotFound(r.Update(ctx, widget))
}
