/**
 * The tab "Lineage" of the AngularJS page of an image, and the names of what depends on images in
 * the dialog that deletes them.
 */
(function () {
  'use strict';

  var DELETE_IMAGE = 'horizon.app.core.images.actions.delete-image.service';
  var DELETE_DIALOG = 'horizon.framework.widgets.modal.deleteModalService';
  var SENTENCE = 'relatedImagesSentence';

  angular
    .module('related-images', ['horizon.app.core.images', 'horizon.framework.widgets.modal'])
    .config(tellDependents)
    .run(addTab)
    .directive('relatedImagesLineage', lineage);

  addTab.$inject = [
    '$window',
    'horizon.app.core.images.resourceType',
    'horizon.framework.conf.resource-type-registry.service'
  ];

  function addTab($window, imageType, registry) {
    registry.getResourceType(imageType).detailsViews.append({
      id: 'relatedImagesLineage',
      name: gettext('Lineage'),
      template: $window.STATIC_URL + 'related_images/lineage.html'
    });
  }

  lineage.$inject = ['$http', '$window'];

  function lineage($http, $window) {
    return {restrict: 'E', link: link};

    function link(scope, element) {
      // the tabs are all in the page; the data are loaded when this one is shown first
      var observer = new $window.IntersectionObserver(function (entries) {
        if (entries.some(function (entry) { return entry.isIntersecting; })) {
          observer.disconnect();
          scope.context.loadPromise.then(load);
        }
      });
      observer.observe(element[0]);
      scope.$on('$destroy', function () { observer.disconnect(); });

      function load(image) {
        var path = 'api/related-images/images/' + image.data.id + '/lineage/';
        $http.get($window.WEBROOT + path).then(show, fail);
      }

      function show(response) {
        // it is not compiled: names of images and servers must not become expressions
        element.html(response.data);
      }

      function fail() {
        element.text(gettext('The lineage cannot be loaded.'));
      }
    }
  }

  tellDependents.$inject = ['$provide'];

  function tellDependents($provide) {
    $provide.decorator(DELETE_IMAGE, ask);
    $provide.decorator(DELETE_DIALOG, tell);
  }

  ask.$inject = ['$delegate', '$http', '$window'];

  function ask(service, $http, $window) {
    var perform = service.perform;
    service.perform = function (items, scope) {
      var ids = (angular.isArray(items) ? items : [items]).map(function (one) { return one.id; });
      var url = $window.WEBROOT + 'api/related-images/dependents/';
      return $http.get(url, {params: {image_ids: ids.join(',')}}).then(
        function (response) { scope[SENTENCE] = response.data.text; },
        angular.noop
      ).then(function () { return perform(items, scope); });
    };
    return service;
  }

  tell.$inject = ['$delegate'];

  function tell(dialog) {
    var open = dialog.open;
    dialog.open = function (scope, entities, context) {
      if (scope && scope[SENTENCE]) {
        // the dialog replaces %s
        context.labels.message += ' ' + scope[SENTENCE].replace(/%/g, '\uFF05');
      }
      return open(scope, entities, context);
    };
    return dialog;
  }
})();
