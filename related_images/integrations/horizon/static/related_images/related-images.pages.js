/** The Django pages: the dialog that deletes images, and images that are not complete. */
(function () {
  'use strict';

  var SECONDS = 5;

  horizon.addInitFunction(function () {
    var confirm = horizon.datatables.confirm;
    horizon.datatables.confirm = function (action) {
      var modal = confirm(action);
      var ids = chosenImages($(action));
      if (modal && ids.length) {
        var url = WEBROOT + 'api/related-images/dependents/';
        $.getJSON(url, {image_ids: ids.join(',')}).done(function (answer) {
          if (answer.text) {
            $('<p role="alert"></p>').text(answer.text).appendTo(modal.find('.modal-body'));
          }
        });
      }
      return modal;
    };
  });

  /** Returns the IDs of the images that an action deletes. */
  function chosenImages($action) {
    var words = String($action.attr('value') || '').split('__');
    if (words[0] !== 'images' || words[1] !== 'delete') {
      return [];
    }
    if (words[2]) {
      return [words[2]];
    }
    return $action.closest('form').find('.table-row-multi-select:checked').map(function () {
      return this.value;
    }).get();
  }

  horizon.tabs.addTabLoadFunction(watch);

  /** Loads a tab again while an image in it is not complete. */
  function watch($tab) {
    if ($tab.find('[data-unfinished]').length) {
      window.setTimeout(function () {
        var url = window.location.pathname + '?tab=' + $tab.attr('id');
        $.get(url).done(function (content) {
          $tab.html(content);
          watch($tab);
        });
      }, 1000 * SECONDS);
    }
  }

  horizon.addInitFunction(function () {
    // a tab that is in the page from the start is not loaded
    watch($('.tab-pane.active').has('[data-unfinished]').first());
  });
})();
